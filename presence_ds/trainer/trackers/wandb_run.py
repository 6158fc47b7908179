"""Weights & Biases: figures, histograms and tables of samples as they come.

A wandb run has one history, however often the run is resumed. One that is written offline has none, since wandb begins
another folder each time, and so the newest folder has all lines and takes the place of those before it.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import psutil

from presence_ds.trainer.run_directory.layout import RunDirectory, write_atomically
from presence_ds.trainer.trackers.sections import AXES, SAMPLES, SECTIONS
from presence_ds.trainer.trackers.tracker import Line, Tracker
from presence_ds.trainer.trackers.wandb_access import answers, has_key, server
from presence_ds.trainer.trackers.wandb_config import WandbConfig
from presence_ds.trainer.trackers.wandb_file import steps_in

INIT_TIMEOUT = 60.0  # seconds
FINISH_TIMEOUT = 45.0  # seconds that the end of a run waits for the upload; `wandb sync` sends the rest
ALERTS_APART = timedelta(minutes=10)  # at least, of one kind


class WandbRun(Tracker):
    """One wandb run per run directory; its id is kept there, so that a resumed run goes on in it."""

    name = "wandb"

    def __init__(self, config: WandbConfig, directory: RunDirectory, warn: Callable[[str], None]) -> None:
        """``warn`` takes a line about what is not as it should be."""
        self.config: WandbConfig = config
        self._directory = directory
        self._warn = warn
        self._offline = False
        self._run: Any = None
        self._sent: list[int] = []  # steps

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        mode = self._mode()
        if mode == "disabled":
            self._warn("wandb is off for this run: WANDB_MODE is disabled")
            return None
        self._offline = mode == "offline"
        run = self._run = self._init(resolved)
        return max(run.starting_step - 1, int(run.summary.get("step") or 0))  # that wandb has; 0 of a new run

    def log(self, line: Line) -> None:
        import wandb

        shown: dict[str, Any] = dict(line.figures)
        for name, histogram in line.histograms.items():
            shown[name] = wandb.Histogram(np_histogram=(histogram.counts, histogram.edges))
        if line.samples:
            columns = list(line.samples[0])
            shown[SAMPLES] = wandb.Table(columns=columns, data=[list(row.values()) for row in line.samples])
        self._run.log(shown, step=line.step, commit=True)
        self._sent.append(line.step)

    def caught_up(self) -> None:
        if self._offline:
            self._supersede()

    def alert(self, title: str, text: str) -> None:
        self._run.alert(title, text, level="WARN", wait_duration=ALERTS_APART)

    def finish(self) -> None:
        self._run.finish()
        self.tear_down()  # then the file is complete
        if not self._offline:
            self._supersede()
        elif steps_in(self._folder / f"run-{self._run.id}.wandb") == self._sent:
            shutil.rmtree(self._superseded, ignore_errors=True)
        else:
            self._warn(f"wandb: {self._folder} has not all lines of metrics.jsonl, maybe for want of space on the disk")

    def tear_down(self) -> None:
        """End wandb's own process; without it the end of this one would wait for that for ever."""
        if (wandb := sys.modules.get("wandb")) is not None:
            with suppress(Exception):
                wandb.teardown()

    def abandon(self) -> None:
        """Kill wandb's own process, so that whoever waits for it goes on with an error."""
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.name() == "wandb-core":
                    child.kill()

    def _init(self, resolved: dict[str, Any]) -> Any:
        import wandb

        run_id_file = self._directory.wandb_run_id
        run_id = run_id_file.read_text(encoding="utf-8").strip() if run_id_file.is_file() else uuid.uuid4().hex[:8]
        write_atomically(run_id_file, run_id + "\n")
        run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            group=self.config.group,
            name=self.config.name or self._directory.path.name,
            id=run_id,
            # without "allow" `wandb sync` puts a file in the place of the server's run
            resume=None if self._offline else "allow",
            dir=str(self._directory.path),
            mode="offline" if self._offline else "online",
            config=resolved,
            settings=wandb.Settings(
                init_timeout=INIT_TIMEOUT, finish_timeout=FINISH_TIMEOUT, console="off", silent=True
            ),
        )
        for axis in AXES:
            run.define_metric(axis, hidden=True)
        for section in SECTIONS:  # a summary has the last figure, under the figure's own name
            run.define_metric(f"{section}/*", step_metric="step")
        return run

    def _mode(self) -> Literal["online", "offline", "disabled"]:
        if self.config.mode != "auto":
            return self.config.mode
        stated = os.environ.get("WANDB_MODE")
        if stated == "disabled":
            return "disabled"
        if stated in ("offline", "dryrun") or not has_key():
            return "offline"
        return "online" if answers(server()) else "offline"

    @property
    def _folder(self) -> Path:
        """Of the run, as long as it is offline."""
        return Path(self._run.dir).parent

    @property
    def _superseded(self) -> Path:
        """Where folders go whose history is in a newer one; `wandb sync RUN_DIR/wandb` does not look into it."""
        return self._directory.path / "wandb" / "superseded"

    def _supersede(self) -> None:
        """Move the offline folders of this run but its own out of the way of `wandb sync`."""
        for other in self._folder.parent.glob(f"offline-run-*-{self._run.id}*"):
            if other != self._folder:
                self._superseded.mkdir(exist_ok=True)
                os.replace(other, self._superseded / other.name)
