"""Rows of parquet and arrow files."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.data.readers.arrow import arrow_batches, count_arrow_rows, skip_rows
from presence_ds.data.readers.compression import one_line, uncompressed
from presence_ds.data.readers.documents import BadRow, Document, Fields
from presence_ds.data.readers.hub_file import File
from presence_ds.data.readers.part import Part
from presence_ds.errors import DataError

TABLE_BATCH_ROWS = 1000
NOT_UTF8 = object()
BINARY = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def read_table(
    path: File, name: str, kind: str, fields: Fields, part: Part, rows_before: int
) -> Iterator[Document | BadRow]:
    """Read the rows of a file of ``kind`` parquet or arrow. Ids are ``name:row`` unless ``fields`` has one.

    Rows are counted from 1, or in the ids from ``rows_before`` + 1.

    Raises:
        DataError: the file has no column of that name.
        UnreadableFile: it is not readable as such.
    """
    columns = fields.names
    with ExitStack() as stack:
        stack.enter_context(one_line(path, "a parquet file" if kind == "parquet" else "an arrow file"))
        plain = stack.enter_context(uncompressed(path))
        table = stack.enter_context(_open_parquet(plain)) if kind == "parquet" else None
        begin, end = 0, None
        if part.count > 1:
            begin, end = part.bounds(count_arrow_rows(plain) if table is None else table.metadata.num_rows)
        number = begin + part.place.row
        for batch in arrow_batches(plain, number) if table is None else _parquet_batches(table, columns, number):
            if missing := [column for column in columns if column not in batch.schema.names]:
                raise DataError(f'{path} has no column "{missing[0]}": its columns are {", ".join(batch.schema.names)}')
            selected = batch.select(columns)
            if end is not None:
                selected = selected.slice(0, max(0, end - number))
            for row in zip(*(_values(column) for column in selected.columns), strict=True):
                number += 1
                part.place = part.place._replace(row=number - begin)
                location = f"{path} row {number}"
                if NOT_UTF8 in row:
                    yield BadRow(location, f'field "{columns[row.index(NOT_UTF8)]}" is not valid UTF-8')
                    continue
                values = dict(zip(columns, row, strict=True))
                yield fields.document(values, f"{name}:{rows_before + number}", location)
            if end is not None and number >= end:
                return


@contextmanager
def _open_parquet(path: File) -> Iterator[pq.ParquetFile]:
    """Open a file, of which no more than the end is read for that.

    Of a file on the hub pyarrow asks for the columns that it reads, a row group at a time, and for nothing else.
    """
    with ExitStack() as stack:
        source = path if isinstance(path, Path) else stack.enter_context(path.open("rb", buffering=0))
        yield stack.enter_context(pq.ParquetFile(source, page_checksum_verification=True))


def _parquet_batches(table: pq.ParquetFile, columns: list[str], start: int = 0) -> Iterator[pa.RecordBatch]:
    """Batches of ``columns`` from row ``start`` on, or where one is missing an empty batch of all that the file has.

    The row group that ``start`` lies in is read from its beginning, and none before it.
    """
    names = table.schema_arrow.names
    if not set(columns) <= set(names):
        yield pa.RecordBatch.from_pylist([], schema=table.schema_arrow)
        return
    group = 0
    while group < table.num_row_groups and start >= table.metadata.row_group(group).num_rows:
        start -= table.metadata.row_group(group).num_rows
        group += 1
    groups = range(group, table.num_row_groups)
    yield from skip_rows(table.iter_batches(TABLE_BATCH_ROWS, row_groups=groups, columns=columns), start)


def _values(column: pa.Array) -> list[Any]:
    """A column's values, with `NOT_UTF8` in the place of a string that is none; pyarrow refuses the whole column."""
    try:
        column.validate(full=True)
        return column.to_pylist()
    except pa.ArrowInvalid:
        raw = _as_binary(column)
        if raw is None:
            raise
        raw.validate(full=True)
    return [None if value is None else _decoded(value) for value in raw.to_pylist()]


def _as_binary(column: pa.Array) -> pa.Array | None:
    """A column of strings as one of bytes, nothing of it copied or looked at; None for a column of another type."""
    if pa.types.is_dictionary(column.type):
        values = _as_binary(column.dictionary)
        return None if values is None else pa.DictionaryArray.from_arrays(column.indices, values)
    return column.cast(BINARY[column.type]) if column.type in BINARY else None


def _decoded(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
