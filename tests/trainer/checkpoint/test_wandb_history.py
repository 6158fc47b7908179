"""wandb in whole runs that are resumed: the file has the lines of metrics.jsonl, those before it was enabled too."""

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

from presence_ds.trainer.trackers.sections import LOWEST_LOSS, VALIDATION_LOSS, sectioned
from presence_ds.trainer.trackers.wandb_file import records
from tests.trainer.checkpoint.conftest import Train, interrupted
from tests.trainer.conftest import read_metrics


def test_a_resumed_run_has_one_history(
    train: Train, whole: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = interrupted(whole(1, 2), tmp_path / "run", 3)
    for steps in (5, 6):
        options = ["--wandb.enabled", "true", "--wandb.mode", "offline", "--training.steps", str(steps)]
        assert train(run_dir, *options, ranks=1) is None
        (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
        lines = [record.history.item for record in records(file) if record.HasField("history")]
        logged = [
            {item.nested_key[0]: json.loads(item.value_json) for item in line if len(item.nested_key) == 1}
            for line in lines
        ]
        kept = [{name: value for name, value in line.items() if not name.startswith("_")} for line in logged]
        told = [line.pop(LOWEST_LOSS) for line in kept if LOWEST_LOSS in line]
        assert kept == [sectioned(line) for line in read_metrics(run_dir)]
        losses = [line[VALIDATION_LOSS] for line in kept if VALIDATION_LOSS in line]
        assert told == list(accumulate(losses, min)) != []
        assert [line["_step"] for line in logged] == list(range(1, steps + 1))
