"""The end of several trackers at once, and what every tracker is told beside the metrics."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers import worker
from presence_ds.trainer.trackers.history import Lowest, make_line
from presence_ds.trainer.trackers.sections import LOWEST_LOSS
from presence_ds.trainer.trackers.tracker import Line, Tracker
from presence_ds.trainer.trackers.wandb_config import WandbConfig
from presence_ds.trainer.trackers.worker import Worker


class Hangs(Tracker):
    name = "hangs"
    config = WandbConfig()

    def __init__(self) -> None:
        self.released = threading.Event()

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        self.released.wait()
        return None


class Slow(Tracker):
    """Ends in time, if it is told at once that there is nothing more."""

    name = "slow"
    config = WandbConfig()
    finished = False

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        return 0

    def log(self, line: Line) -> None:
        pass

    def finish(self) -> None:
        time.sleep(0.2)
        self.finished = True


def test_trackers_that_hang_are_waited_for_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLOSE_TIMEOUT", 0.5)
    monkeypatch.setattr(worker, "ABANDON_TIMEOUT", 0.1)
    trackers = [Hangs(), Hangs(), Hangs(), Slow()]
    told: list[str] = []
    workers = [Worker(tracker, RunDirectory(tmp_path), {}, told.append) for tracker in trackers]
    for one in workers:
        one.begin(1)
    began = time.monotonic()
    worker.close(workers)
    assert 0.6 <= time.monotonic() - began < 0.9
    assert told == ["hangs is off for the rest of this run: it has not ended within 0.5 s"] * 3
    assert isinstance(trackers[-1], Slow)
    assert trackers[-1].finished
    for tracker in trackers[:3]:
        assert isinstance(tracker, Hangs)
        tracker.released.set()


def test_the_lowest_validation_loss_so_far() -> None:
    losses = [None, 3.0, float("nan"), 1.0, None, 2.0]
    lowest = Lowest()
    found = []
    for step, loss in enumerate(losses, 1):
        metrics = {"step": step} if loss is None else {"step": step, "validation/loss": loss}
        found.append(lowest.of(make_line(metrics, {})).figures.get(LOWEST_LOSS))
    assert found == [None, 3.0, None, 1.0, None, 1.0]
