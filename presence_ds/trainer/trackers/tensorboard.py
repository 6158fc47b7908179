"""TensorBoard: event files in RUN_DIR/tensorboard."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import yaml

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.sections import SAMPLES
from presence_ds.trainer.trackers.tensorboard_config import TensorboardConfig
from presence_ds.trainer.trackers.tensorboard_file import cut
from presence_ds.trainer.trackers.tracker import Histogram, Line, Tracker, as_code


class TensorBoard(Tracker):
    """A file of every start, each of which goes on where the one before ends.

    The steps that are trained again are cut off the files. A step is one event, which is there whole or not at all.
    """

    name = "tensorboard"

    def __init__(self, config: TensorboardConfig, directory: RunDirectory) -> None:
        self.config: TensorboardConfig = config
        self._folder = directory.tensorboard
        self._writer: Any = None
        self._recipe = ""  # still to be shown, with the first line of this start

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        from torch.utils.tensorboard import SummaryWriter

        lines = yaml.safe_dump(resolved, sort_keys=False).splitlines()
        self._recipe = "\n".join(f"    {line}" for line in lines)
        last = cut(self._folder, first_step)
        # whoever shows the files while they are cut learns from the new one what to forget
        self._writer = SummaryWriter(str(self._folder), purge_step=first_step).file_writer
        return last

    def log(self, line: Line) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard.summary import text

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in line.figures.items()
            if isinstance(value, (int, float))
        ]
        for name, histogram in line.histograms.items():
            values += _summary(name, histogram).value
        if line.samples:
            rows = [", ".join(f"{name} {as_code(str(value))}" for name, value in row.items()) for row in line.samples]
            values += text(SAMPLES, "\n\n".join(rows)).value
        if self._recipe:
            values += text("recipe", self._recipe).value
            self._recipe = ""
        self._writer.add_summary(Summary(value=values), line.step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


def _summary(name: str, histogram: Histogram) -> Any:
    from torch.utils.tensorboard.summary import histogram_raw

    low, high, counts = histogram
    middles = [(left + right) / 2 for left, right in pairwise(histogram.edges)]
    first, second = (sum(c * m**power for c, m in zip(counts, middles, strict=True)) for power in (1, 2))
    return histogram_raw(name, low, high, sum(counts), first, second, histogram.edges[1:], counts)
