"""The starts of one run with wandb, without a trainer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from presence_ds.trainer.callbacks.metrics_file import MetricsFile
from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers import worker
from presence_ds.trainer.trackers.history import make_line
from presence_ds.trainer.trackers.sections import sectioned
from presence_ds.trainer.trackers.wandb_config import WandbConfig
from presence_ds.trainer.trackers.wandb_file import records
from presence_ds.trainer.trackers.wandb_run import WandbRun
from presence_ds.trainer.trackers.worker import Worker


class Starts:
    """The starts of one run; `lines` are what it told about wandb."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.directory = RunDirectory(path)
        self.lines: list[str] = []

    def begin(self, after: int, config: WandbConfig, signals: Sequence[int] = ()) -> None:
        """Go on after a checkpoint of step ``after``."""
        self.directory.discard_after(after)
        self.metrics = MetricsFile(self.directory.metrics)
        tracker = WandbRun(config, self.directory, self.lines.append)
        minutes = config.stall_minutes if config.alerts else None
        self.run = Worker(tracker, self.directory, {"training": {"steps": 3}}, self.lines.append, signals, minutes)
        self.run.begin(after + 1)

    def log(self, *steps: int) -> None:
        for step in steps:
            value = {"step": step, "loss": 1.25 / step, "norm": float("nan"), "stage": "direct", "start": id(self.run)}
            self.put(value)

    def put(self, value: dict[str, Any]) -> None:
        self.metrics.on_log(None, value)  # type: ignore[arg-type]
        self.run.put(make_line(value, {}))

    def end(self) -> None:
        self.metrics.close()
        worker.close([self.run])

    def expected(self) -> list[dict[str, Any]]:
        return [sectioned(json.loads(line)) for line in self.directory.metrics.read_text().splitlines()]

    def files(self) -> list[Path]:
        """What `wandb sync RUN_DIR/wandb/offline-run-*` sends."""
        return sorted(self.directory.path.glob("wandb/offline-run-*/*.wandb"))

    def history(self) -> list[dict[str, Any]]:
        """Of these files, all of which are of one run, whose id is kept."""
        run_id = self.directory.wandb_run_id.read_text().strip()
        assert {file.name for file in self.files()} <= {f"run-{run_id}.wandb"}
        lines = [record.history for file in self.files() for record in records(file) if record.HasField("history")]
        return [logged({item.nested_key[0]: json.loads(item.value_json) for item in line.item}) for line in lines]


def logged(line: dict[str, Any]) -> dict[str, Any]:
    assert line["_step"] == line["step"]
    return {name: value for name, value in line.items() if not name.startswith("_")}
