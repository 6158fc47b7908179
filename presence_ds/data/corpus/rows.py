"""The stored rows of the train part of a prepared corpus, memory-mapped, as arrow has them."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from presence_ds.data.corpus.manifest import TRAIN_FILE
from presence_ds.data.corpus.storage import BATCH_BYTES, BATCH_ROWS
from presence_ds.errors import DataError

UNFILTERED_ROW = "unfiltered_row"  # column of a filtered corpus


class StoredRows:
    """Rows of the columns of `sample_features`; a filtered corpus has `UNFILTERED_ROW` beside them.

    Attributes:
        table: all of them, on disk until they are looked at.
    """

    def __init__(self, directory: Path) -> None:
        """Raises `DataError` where the file cannot be read."""
        path = directory / TRAIN_FILE
        try:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                self.table = stream.read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} is damaged ({' '.join(str(error).split())}): prepare the corpus again") from None

    def __len__(self) -> int:
        return len(self.table)

    def unfiltered_rows(self) -> NDArray[np.int64]:
        """Where each row was before anything was filtered, int64 [rows], ascending."""
        if UNFILTERED_ROW in self.table.column_names:
            return self.table[UNFILTERED_ROW].to_numpy()
        return np.arange(len(self.table))

    def documents(self) -> NDArray[np.int64]:
        """int64 [rows]: the same number for rows that begin in the same document of the same source."""
        sources = self.table["source_id"].to_numpy()
        return number_ids(self.table["document_id"]) * (int(sources.max(initial=0)) + 1) + sources

    def tokens(self) -> NDArray[np.int64]:
        """Tokens of every row, int64 [rows]."""
        return pc.list_value_length(self.table["input_ids"]).to_numpy().astype(np.int64)

    def of(self, rows: NDArray[np.int64], columns: list[str] | None = None) -> Iterator[pa.Table]:
        """These rows, ascending, of each batch on disk that has any; of all columns unless some are named.

        No other batch is looked at: what arrow takes of a column of lists, it copies all of that column for.
        """
        places = np.searchsorted(self._bounds, rows, side="right") - 1
        ends = np.flatnonzero(np.diff(places, append=-1)) + 1
        for low, high in zip([0, *ends.tolist()], ends.tolist(), strict=False):
            table = pa.Table.from_batches([self._batches[places[low]]])
            if columns is not None:
                table = table.select(columns)
            yield table.take(pa.array(rows[low:high] - self._bounds[places[low]]))

    def column(self, name: str, rows: NDArray[np.int64]) -> pa.ChunkedArray:
        """A column of these rows, ascending."""
        chunks = [chunk for table in self.of(rows, [name]) for chunk in table[name].chunks]
        return pa.chunked_array(chunks, type=self.table.schema.field(name).type)

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return self.table.to_batches()

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """First row of every batch, and at the end the number of rows."""
        return np.cumsum([0, *map(len, self._batches)])

    def write(self, rows: NDArray[np.int64], path: Path) -> None:
        """Write these rows, ascending, with `UNFILTERED_ROW`, to a file such as they were read from."""
        features = datasets.Features.from_arrow_schema(self.table.schema)
        schema = datasets.Features({**features, UNFILTERED_ROW: datasets.Value("int64")}).arrow_schema
        unfiltered, done = self.unfiltered_rows()[rows], 0
        with pa.ipc.new_stream(str(path), schema) as writer:
            for table in _joined(self.of(rows)):
                columns = [table[name] for name in features if name != UNFILTERED_ROW]
                columns.append(pa.chunked_array([unfiltered[done : done + len(table)]]))
                writer.write_table(pa.table(columns, schema=schema).combine_chunks())
                done += len(table)


def number_ids(ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """The same number for the same string, from 0 in the order in which they are first there; int64 [n]."""
    encoded = ids.cast(pa.large_string()).dictionary_encode()  # of others arrow tells 2 GiB apart at the most
    return encoded.combine_chunks().indices.to_numpy().astype(np.int64)


def _joined(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables about as large as those that preparing writes: few rows may be left of each."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= BATCH_ROWS or sum(one.nbytes for one in waiting) >= BATCH_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
