"""The plane of squared norm and alignment, from sums over cells, block after block of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from presence_ds.trainer.report.plain import plain, plain_list
from presence_ds.trainer.report.sample_figures import Plane

if TYPE_CHECKING:
    import duckdb

ACROSS, UP = 40, 41
BLOCKS, FEWEST_BLOCKS = 20, 5  # for errors by the jackknife
FEWEST = 5  # samples in a column, or cell, that is told what weight they should have
HELD = 0.002  # share of the samples beyond each end
LOOKED_AT = 50_000  # records that say where the ends are
KNOWN = "from chunk where aligned and n > 0 and unit > 0"


class PlaneSums:
    """Adds up samples, weights, alignments and norms of every cell.

    Samples go through the table ``chunk``, those without an alignment left out: first some of all parts of the run, to
    `look` at, as no part of it is like the others, then all, to `add`.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._ends: tuple[float, float, float, float] | None = None  # left, right, middle, most
        self._sums: dict[int, NDArray[np.float64]] = {}  # by block, [4, UP, ACROSS]
        connection.execute("create temp table looked_at (across double, up double)")

    def look(self) -> None:
        """See how far the samples of the chunk lie from the middle."""
        self._connection.execute(f"insert into looked_at select log10(n / unit), abs(a) / sqrt(n * unit) {KNOWN}")

    def add(self, block: int) -> None:
        """Take in the samples of the chunk."""
        self._ends = self._ends or self._found_ends()
        if self._ends is None:
            return
        left, right, middle, most = self._ends
        row = f"{UP} / 2 * (1 + sign(a) * ln(1 + abs(a) / sqrt(n * unit) / {middle}) / {np.log1p(most / middle)})"
        rows = self._connection.execute(
            f"""
            select least(greatest(floor((log10(n / unit) - {left}) / {(right - left) / ACROSS}), 0), {ACROSS - 1})::int
                as x,
                least(greatest(floor({row}), 0), {UP - 1})::int as y,
                count(*), sum(weight), sum(a / unit), sum(n / unit)
            {KNOWN} group by x, y
            """
        ).fetchnumpy()
        sums = self._sums.setdefault(block, np.zeros((4, UP, ACROSS)))
        x, y, *columns = (np.asarray(column) for column in rows.values())
        for place, column in enumerate(columns):
            np.add.at(sums[place], (y, x), column.astype(np.float64))

    def _found_ends(self) -> tuple[float, float, float, float] | None:
        """Least and most log₁₀ n, and the middle and the most of alignments; None where nothing is aligned."""
        row = self._connection.execute(
            f"select quantile_cont(across, [{HELD}, {1 - HELD}]), quantile_cont(up, [0.5, {1 - HELD}]) from looked_at"
        ).fetchone()
        if row is None or row[0] is None:
            return None
        (left, right), (middle, most) = row
        if plain(most) is None or not most > 0:
            return None
        return left - 0.1, right + 0.1, max(middle, most / 1000), most

    def figures(self) -> Plane | None:
        """None without alignments."""
        if self._ends is None or not self._sums:
            return None
        left, right, middle, most = self._ends
        rows = np.linspace(-1, 1, UP + 1)
        blocks = np.stack([self._sums[block] for block in sorted(self._sums)])
        counts, weights, signal, noise = blocks.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight, optimal = weights / counts, _relative(counts, signal, noise)
            by_norm = blocks.sum(2)  # [blocks, 4, ACROSS]
            norm_optimal, norm_error = _with_error(by_norm[:, [0, 2, 3]])
            norm_counts = by_norm.sum(0)[0]
            norm_weight = by_norm.sum(0)[1] / norm_counts
        optimal[counts < FEWEST] = np.nan
        norm_optimal[norm_counts < FEWEST] = norm_error[norm_counts < FEWEST] = np.nan
        return Plane(
            norm_edges=[round(edge, 4) for edge in np.linspace(left, right, ACROSS + 1).tolist()],
            alignment_edges=_plain_edges(np.sign(rows) * middle * np.expm1(abs(rows) * np.log1p(most / middle))),
            alignment_middle=float(f"{middle:.4g}"),
            counts=counts.astype(int).tolist(),
            weight=[plain_list(row) for row in weight.tolist()],
            optimal=[plain_list(row) for row in optimal.tolist()],
            norm_counts=norm_counts.astype(int).tolist(),
            norm_weight=plain_list(norm_weight.tolist()),
            norm_optimal=plain_list(norm_optimal.tolist()),
            norm_error=plain_list(norm_error.tolist()),
        )


def _plain_edges(edges: NDArray[np.float64]) -> list[float]:
    return [float(f"{edge:.4g}") for edge in edges.tolist()]


def _relative(
    counts: NDArray[np.float64],
    signal: NDArray[np.float64],
    noise: NDArray[np.float64],
    axes: tuple[int, ...] | None = None,
) -> NDArray[np.float64]:
    """a/n, scaled so that its mean over samples is 1, as that of weights; NaN where they have no alignment together.

    Args:
        axes: that the samples lie on; all.
    """
    ratio = signal / noise
    mean = np.nansum(counts * ratio, axes, keepdims=True) / counts.sum(axes, keepdims=True)
    return np.where((signal.sum(axes, keepdims=True) > 0) & (mean > 0), ratio / mean, np.nan)


def _with_error(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best weight by norm and its error, [ACROSS] each, from sums of 1, a and n, [blocks, 3, ACROSS]."""

    def figure(total: NDArray[np.float64]) -> NDArray[np.float64]:
        return _relative(total[..., 0, :], total[..., 1, :], total[..., 2, :], (-1,))

    parts = np.array_split(sums, min(BLOCKS, len(sums)))
    joined = np.stack([part.sum(0) for part in parts])
    total = joined.sum(0)
    value = figure(total)
    if len(joined) < FEWEST_BLOCKS:
        return value, np.full_like(value, np.nan)
    without = figure(total - joined)
    spread = np.square(without - without.mean(0)).sum(0)
    return value, np.sqrt(spread * (len(joined) - 1) / len(joined))
