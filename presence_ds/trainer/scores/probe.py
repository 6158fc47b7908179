"""How far scores tell one source from another: the probes of the paper's figure 1, with intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from presence_ds.data.corpus.rows import number_ids
from presence_ds.errors import ConfigError
from presence_ds.trainer.callbacks.metrics_file import json_value
from presence_ds.trainer.scores.layout import Scores
from presence_ds.trainer.scores.samples import numbers

GROUPS = 2048  # of documents that are drawn together, where there are more documents
BINS = 2048  # of scores that the intervals of an AUC take for equal, where there are more
AT_ONCE = 256  # draws
LEVEL = 0.95


@dataclass(frozen=True)
class Source:
    """The samples of a source that have a score, [n] each.

    Attributes:
        scores: float64.
        documents: int64, from 0: of which document each is.
        left_out: how many have none.
    """

    scores: NDArray[np.float64]
    documents: NDArray[np.int64]
    left_out: int


def read_sources(scores: Scores, names: list[str], column: str) -> dict[str, Source]:
    """The samples of the sources ``names``.

    Raises:
        ConfigError: there is no such source, or it has no score.
        DataError: a file cannot be read.
    """
    found: dict[str, list[tuple[NDArray[np.float32], pa.Array, int]]] = {name: [] for name in names}
    known: set[str] = set()
    for _, part in scores.parts(["source", "document_id", "has_targets", column]):
        sources = part["source"].cast(pa.string())
        recorded = numbers(part, column)
        counted = part["has_targets"].to_numpy() & np.isfinite(recorded)
        known.update(sources.unique().to_pylist())
        for name in names:
            own = pc.equal(sources, name).to_numpy()
            taken = own & counted
            ids = part["document_id"].filter(pa.array(taken)).combine_chunks()
            found[name].append((recorded[taken], ids, int(own.sum() - taken.sum())))
    table = {}
    for name, parts in found.items():
        if name not in known:
            raise ConfigError(f'"{name}" is no source of {scores.folder}: it must be one of {sorted(known)}')
        values = np.concatenate([part[0] for part in parts]).astype(np.float64)
        if not len(values):
            raise ConfigError(f'{scores.folder} has no {column} of any sample of source "{name}"')
        documents = number_ids(pa.chunked_array([part[1] for part in parts]))
        table[name] = Source(values, documents, sum(part[2] for part in parts))
    return table


def probe(clean: Source, noisy: Source, draws: int, seed: int) -> dict[str, Any]:
    """Means, their ratio (noisy / clean), and the AUC, each with the bootstrap's percentile interval.

    The AUC is the probability that a noisy sample has a higher score than a clean one, and half of that of an equal one
    (Mann-Whitney). The bootstrap draws documents, each with all its samples, within each source. From `GROUPS`
    documents on it draws random groups of them, as many as there are, which has the same expected variance; and from
    `BINS` different scores on it takes those for equal that fall into the same of as many quantiles, in the differences
    from the AUC, which itself is exact.

    Args:
        draws: 0 for no intervals.

    Returns:
        ``estimate``, ``low`` and ``high`` of ``clean``, ``noisy``, ``ratio`` and ``auc``. An estimate that is not
        finite is None. An interval is left out where draws are not all finite, and where a source that it is of starts
        in one document, whose every draw is the same.
    """
    estimate = {
        "clean": float(clean.scores.mean()),
        "noisy": float(noisy.scores.mean()),
        "auc": auc(clean.scores, noisy.scores),
    }
    estimate["ratio"] = estimate["noisy"] / estimate["clean"] if estimate["clean"] else float("nan")
    found: dict[str, Any] = {name: {"estimate": json_value(value)} for name, value in estimate.items()}
    if draws:
        alone = {name for name, one in (("clean", clean), ("noisy", noisy)) if one.documents.max() == 0}
        for name, values in _bootstrap(clean, noisy, estimate["auc"], draws, seed).items():
            drawn = not alone if name in ("ratio", "auc") else name not in alone
            if drawn and np.isfinite(values).all():
                low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
                found[name] |= {"low": low, "high": high}
    return found


def auc(clean: NDArray[np.float64], noisy: NDArray[np.float64]) -> float:
    """P(noisy > clean) + P(noisy = clean) / 2 over all pairs."""
    ordered, asked = np.sort(clean), np.sort(noisy)  # neighbours are looked up one after the other
    below = np.searchsorted(ordered, asked, side="left").sum() + np.searchsorted(ordered, asked, side="right").sum()
    return float(below) / (2.0 * len(clean) * len(noisy))


def _bootstrap(clean: Source, noisy: Source, exact: float, draws: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """[draws] of each figure."""
    generator = np.random.default_rng(seed)
    edges = _edges(np.concatenate([clean.scores, noisy.scores]))
    tables = [_table(source, edges, generator) for source in (clean, noisy)]
    binned = float(_aucs(*(table.counts.sum(axis=0, keepdims=True) for table in tables))[0])
    found: dict[str, list[NDArray[np.float64]]] = {"clean": [], "noisy": [], "auc": []}
    for first in range(0, draws, AT_ONCE):
        number = min(AT_ONCE, draws - first)
        drawn = []
        for name, table in zip(("clean", "noisy"), tables, strict=True):
            groups = len(table.sums)
            weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=number).astype(np.float64)
            found[name].append(weights @ table.sums / (weights @ table.sizes))
            drawn.append(weights @ table.counts)
        found["auc"].append(_aucs(*drawn) + (exact - binned))
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        return values | {"ratio": values["noisy"] / values["clean"]}


@dataclass(frozen=True)
class Table:
    """Of every group of documents the sum of the scores, their number, and that in every bin, [groups(, bins)]."""

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]
    counts: NDArray[np.float64]


def _table(source: Source, edges: NDArray[np.float64], generator: np.random.Generator) -> Table:
    documents = int(source.documents.max()) + 1
    groups = min(documents, GROUPS)
    rows = (generator.permutation(documents) % groups)[source.documents]  # each of as many documents, to within one
    bins = np.searchsorted(edges, source.scores, side="right")
    counts = np.bincount(rows * (len(edges) + 1) + bins, minlength=groups * (len(edges) + 1))
    return Table(
        np.bincount(rows, source.scores, groups).astype(np.float64),
        np.bincount(rows, minlength=groups).astype(np.float64),
        counts.reshape(groups, -1).astype(np.float64),
    )


def _edges(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """What separates every score from the next, or as many quantiles as there are bins."""
    different = np.unique(scores)
    if len(different) > BINS:
        different = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)[:-1], method="nearest"))
    return different[1:]


def _aucs(clean: NDArray[np.float64], noisy: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUC of each of these histograms, [draws, bins] both, whose scores count as equal within a bin."""
    below = np.cumsum(clean, axis=1) - clean / 2
    return (below * noisy).sum(axis=1) / (clean.sum(axis=1) * noisy.sum(axis=1))
