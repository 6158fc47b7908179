"""Which steps of the records are read: all of them in bins, or of too many a sample."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from presence_ds.trainer.report.recorded import Recorded

MOST_RECORDS = 12_000_000  # that are read
BINS, LEAST_ROWS = 100, 300  # of steps, and of records in each


class Ranges(NamedTuple):
    """Stretches of steps that are read, one for each bin.

    Attributes:
        share: of all records that are expected in them; 1 for all.
    """

    stretches: list[tuple[int, int]]
    share: float


def ranges_of(recorded: Recorded, most: int = MOST_RECORDS) -> Ranges:
    """Ranges of all steps, or where there are more than ``most`` records of some that are spread over the run.

    A row group is read as a whole, however few of its steps are needed: of large ones fewer are looked into.
    """
    first, span = recorded.first, recorded.last + 1 - recorded.first
    bins = max(1, min(BINS, span, recorded.rows // LEAST_ROWS))
    if recorded.rows <= most:
        return Ranges(_cut(first, span, bins, 1.0), 1.0)
    sizes = [sum(group.rows for group in recorded.inside(start, start)) for start, _ in _cut(first, span, bins, 0.0)]
    bins = min(bins, max(5, 4 * most * len(sizes) // max(1, sum(sizes))))
    stretches = _cut(first, span, bins, most / recorded.rows)
    steps = sum(last + 1 - start for start, last in stretches)
    return Ranges(stretches, steps / span)


def _cut(first: int, span: int, bins: int, share: float) -> list[tuple[int, int]]:
    """The first ``share`` of the steps of each of as many bins, and one at least."""
    bounds = [first + number * span // bins for number in range(bins + 1)]
    return [(start, min(end, start + max(1, round((end - start) * share))) - 1) for start, end in pairwise(bounds)]
