"""The scores of a corpus' samples, checked against the corpus, as arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from presence_ds.data.corpus.rows import StoredRows
from presence_ds.errors import DataError
from presence_ds.trainer.scores.layout import Scores

IDENTITY = ["source", "document_id", "offset"]


@dataclass(frozen=True)
class ScoredSamples:
    """The samples of the train part of a corpus, [n] each, in its order.

    Attributes:
        source_ids: int32, into ``source_names``.
        scores: float32, as recorded; NaN where there is none.
        counted: bool: has targets, and a score that is finite.
        tokens: int64.
    """

    source_names: list[str]
    source_ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    counted: NDArray[np.bool_]
    tokens: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def scored_rows_of(scores: Scores, corpus: Path, manifest: dict[str, Any], stored: StoredRows) -> NDArray[np.int64]:
    """Which rows of the scores are those of ``stored``, int64 [n], ascending.

    Scores are of the corpus itself, or of the one at the beginning that it was filtered from.

    Raises:
        DataError: they are scores of another corpus.
    """
    of = scores.manifest["corpus"]
    unfiltered = manifest.get("filtered", {}).get("unfiltered", {})
    if (of["digest"], of["rows"]) == (manifest["digest"], len(stored)):
        return np.arange(len(stored))
    if (of["digest"], of["rows"]) == (unfiltered.get("digest"), unfiltered.get("rows")):
        return stored.unfiltered_rows()
    theirs, ours = f"{of['rows']} rows, digest {of['digest'][:12]}", f"{len(stored)}, {manifest['digest'][:12]}"
    raise DataError(
        f"{scores.folder} has scores of another corpus than {corpus} ({theirs}, instead of {ours}): give the one that "
        f"was scored, {of['path']}, or what was filtered from it"
    )


def read_samples(
    scores: Scores, column: str, stored: StoredRows, scored_rows: NDArray[np.int64], source_names: list[str]
) -> ScoredSamples:
    """The samples with ``column`` as their score, each compared with its row of the corpus.

    Raises:
        DataError: a file cannot be read, the column is none of numbers, or a row is of another sample.
    """
    size = len(stored)
    values, counted = np.empty(size, np.float32), np.empty(size, np.bool_)
    source_ids = stored.table["source_id"].to_numpy()
    names = pa.array(source_names)
    for first, part in scores.parts([*IDENTITY, column, "has_targets"]):
        low, high = np.searchsorted(scored_rows, [first, first + len(part)]).tolist()
        part = part.take(pa.array(scored_rows[low:high] - first))
        rows = stored.table.slice(low, high - low)
        _check_same(scores, part, rows.append_column("source", names.take(rows["source_id"].combine_chunks())))
        values[low:high] = numbers(part, column)
        counted[low:high] = part["has_targets"].to_numpy() & np.isfinite(values[low:high])
    return ScoredSamples(source_names, source_ids, values, counted, stored.tokens())


def numbers(table: pa.Table, column: str) -> NDArray[np.float32]:
    """A column of scores, float32 [rows]; NaN where there is none. Raises `DataError` if it is none of numbers."""
    kind = table[column].type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise DataError(f"column {column} of the scores is of type {kind}: it must be one of numbers")
    return table[column].cast(pa.float32(), safe=False).to_numpy()  # whole numbers are rounded above 2^24


def _check_same(scores: Scores, part: pa.Table, rows: pa.Table) -> None:
    """Raise `DataError` for the first row of the scores that is of another sample than that of the corpus."""
    for name in IDENTITY:
        theirs, ours = part[name].cast(rows[name].type), rows[name]
        equal = pc.fill_null(pc.equal(theirs, ours), False)
        if not pc.all(equal, min_count=0).as_py():  # a file may have no row that is left
            at = pc.index(equal, False).as_py()
            raise DataError(
                f"{scores.folder} has scores of another corpus: its row {part['row'][at]} is of {name} {theirs[at]}, "
                f"and that of the corpus of {ours[at]}"
            )
