"""What was logged of a run before: the lines of metrics.jsonl, and what trackers show beside them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.sections import LOWEST_LOSS, VALIDATION_LOSS, sectioned
from presence_ds.trainer.trackers.tracker import Histogram, Line


class Lowest:
    """Looks at every line, in order, of all starts of a run, and adds the lowest validation loss so far.

    A tracker that keeps it by itself may know of the last start alone.
    """

    def __init__(self) -> None:
        self._loss: float | None = None

    def of(self, line: Line) -> Line:
        """``line`` with `LOWEST_LOSS`, if it has a validation loss."""
        loss = line.figures.get(VALIDATION_LOSS)
        if loss is None:
            return line
        self._loss = loss if self._loss is None else min(loss, self._loss)
        return line._replace(figures={**line.figures, LOWEST_LOSS: self._loss})


def history(directory: RunDirectory, *, before: int) -> Iterator[Line]:
    """The lines of steps before ``before``, which nobody is writing any more."""
    beside = read_lines(directory.tracked, before=before)
    more: dict[str, Any] = next(beside, {})
    for metrics in read_lines(directory.metrics, before=before):
        while more and more["step"] < metrics["step"]:
            more = next(beside, {})
        yield make_line(metrics, more if more and more["step"] == metrics["step"] else {})


def make_line(metrics: dict[str, Any], beside: dict[str, Any]) -> Line:
    """From a line of metrics.jsonl and, of the same step, one of `RunDirectory.tracked`."""
    histograms = {name: Histogram(*parts) for name, parts in beside.get("histograms", {}).items()}
    return Line(metrics["step"], sectioned(metrics), histograms, beside.get("samples"))


def read_lines(path: Path, *, before: int) -> Iterator[dict[str, Any]]:
    """The lines of a file of JSON objects of steps before ``before``; none of a file that is not there."""
    with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        whole = takewhile(lambda text: text.endswith("\n"), file)  # the last one may be on its way
        yield from takewhile(lambda line: line["step"] < before, map(json.loads, whole))
