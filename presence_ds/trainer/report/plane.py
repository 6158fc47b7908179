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
HELD = 0.002  # share of the samples beyond each end of the first bin's


class PlaneSums:
    """Adds up samples, weights, alignments and norms of every cell."""

    def __init__(self) -> None:
        self._edges: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._sums: dict[int, NDArray[np.float64]] = {}  # by block, [4, UP, ACROSS]

    def add(self, connection: duckdb.DuckDBPyConnection, block: int) -> None:
        """Take in the samples of the table ``chunk`` that have an alignment."""
        self._edges = self._edges or _edges(connection)
        if self._edges is None:
            return
        (left, *_, right), (low, *_, high) = (edges.tolist() for edges in self._edges)
        rows = connection.execute(
            f"""
            select least(greatest(floor((log10(n / unit) - {left}) / {(right - left) / ACROSS}), 0), {ACROSS - 1})::int
                as x,
                least(greatest(floor((a / sqrt(n * unit) - {low}) / {(high - low) / UP}), 0), {UP - 1})::int as y,
                count(*), sum(weight), sum(a / unit), sum(n / unit)
            from chunk where aligned and n > 0 and unit > 0 group by x, y
            """
        ).fetchnumpy()
        sums = self._sums.setdefault(block, np.zeros((4, UP, ACROSS)))
        x, y, *columns = (np.asarray(column) for column in rows.values())
        for place, column in enumerate(columns):
            np.add.at(sums[place], (y, x), column.astype(np.float64))

    def figures(self) -> Plane | None:
        """None without alignments."""
        if self._edges is None or not self._sums:
            return None
        blocks = np.stack([self._sums[block] for block in sorted(self._sums)])
        counts, weights, signal, noise = blocks.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight, optimal = weights / counts, _relative(signal, noise, signal.sum(), noise.sum())
            by_norm = blocks.sum(2)  # [blocks, 4, ACROSS]
            norm_optimal, norm_error = _with_error(by_norm[:, 2:])
            norm_counts = by_norm.sum(0)[0]
            norm_weight = by_norm.sum(0)[1] / norm_counts
        optimal[counts < FEWEST] = np.nan
        norm_optimal[norm_counts < FEWEST] = norm_error[norm_counts < FEWEST] = np.nan
        return Plane(
            norm_edges=[round(edge, 4) for edge in self._edges[0].tolist()],
            alignment_edges=[round(edge, 4) for edge in self._edges[1].tolist()],
            counts=counts.astype(int).tolist(),
            weight=[plain_list(row) for row in weight.tolist()],
            optimal=[plain_list(row) for row in optimal.tolist()],
            norm_counts=norm_counts.astype(int).tolist(),
            norm_weight=plain_list(norm_weight.tolist()),
            norm_optimal=plain_list(norm_optimal.tolist()),
            norm_error=plain_list(norm_error.tolist()),
        )


def _edges(connection: duckdb.DuckDBPyConnection) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Of cells; as many above the axis as below, the middle row about it. None where nothing is aligned."""
    row = connection.execute(
        f"select quantile_cont(log10(n / unit), [{HELD}, {1 - HELD}]), quantile_cont(abs(a) / sqrt(n * unit), "
        f"{1 - HELD}) from chunk where aligned and n > 0 and unit > 0"
    ).fetchone()
    if row is None or row[0] is None or plain(row[1]) is None or not row[1] > 0:
        return None
    (left, right), most = row
    left, right = left - 0.1, right + 0.1
    return np.linspace(left, right, ACROSS + 1), np.linspace(-most, most, UP + 1)


def _relative(signal: NDArray, noise: NDArray, all_signal: NDArray, all_noise: NDArray) -> NDArray[np.float64]:
    """a/n by that of all; NaN where all samples together have no alignment."""
    return np.where(all_signal > 0, (signal / noise) / (all_signal / all_noise), np.nan)


def _with_error(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best weight by norm and its error, [ACROSS] each, from sums of a and n [blocks, 2, ACROSS]."""

    def figure(total: NDArray[np.float64]) -> NDArray[np.float64]:
        signal, noise = total[..., 0, :], total[..., 1, :]
        return _relative(signal, noise, signal.sum(-1, keepdims=True), noise.sum(-1, keepdims=True))

    parts = np.array_split(sums, min(BLOCKS, len(sums)))
    joined = np.stack([part.sum(0) for part in parts])
    total = joined.sum(0)
    value = figure(total)
    if len(joined) < FEWEST_BLOCKS:
        return value, np.full_like(value, np.nan)
    without = figure(total - joined)
    spread = np.square(without - without.mean(0)).sum(0)
    return value, np.sqrt(spread * (len(joined) - 1) / len(joined))
