"""TensorBoard: event files in RUN_DIR/tensorboard."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import yaml

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.sections import SAMPLES
from presence_ds.trainer.trackers.tensorboard_config import TensorboardConfig
from presence_ds.trainer.trackers.tracker import Line, Tracker, as_code


class TensorBoard(Tracker):
    """One file with every step, written anew at every start.

    That TensorBoard is to forget the steps that are trained again can be said in a file that goes on, but of tables it
    does not.
    """

    name = "tensorboard"

    def __init__(self, config: TensorboardConfig, directory: RunDirectory) -> None:
        self.config: TensorboardConfig = config
        self._folder = directory.tensorboard
        self._writer: Any = None

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        from torch.utils.tensorboard import SummaryWriter

        for file in self._folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = SummaryWriter(str(self._folder))
        lines = yaml.safe_dump(resolved, sort_keys=False).splitlines()
        self._writer.add_text("recipe", "\n".join(f"    {line}" for line in lines))
        return 0

    def log(self, line: Line) -> None:
        for name, value in line.figures.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, line.step)
        for name, (low, high, counts) in line.histograms.items():
            edges = line.histograms[name].edges
            middles = [(left + right) / 2 for left, right in pairwise(edges)]
            sums = (sum(c * m**power for c, m in zip(counts, middles, strict=True)) for power in (1, 2))
            self._writer.add_histogram_raw(name, low, high, sum(counts), *sums, edges[1:], counts, line.step)
        if line.samples:
            rows = [", ".join(f"{name} {as_code(str(value))}" for name, value in row.items()) for row in line.samples]
            self._writer.add_text(SAMPLES, "\n\n".join(rows), line.step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()
