"""Rows of parquet and arrow files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from presence_ds.data.readers.arrow import arrow_batches
from presence_ds.data.readers.compression import one_line, uncompressed
from presence_ds.data.readers.fields import from_fields
from presence_ds.data.readers.parquet import parquet_batches
from presence_ds.data.rows import BadRow, Document
from presence_ds.errors import DataError


def read_table(
    path: Path, name: str, kind: Literal["parquet", "arrow"], text_field: str, id_field: str | None, max_bytes: int
) -> Iterator[Document | BadRow]:
    """Read the rows of a parquet or arrow file. Ids are ``name:row``, counted from 1, unless ``id_field`` is given.

    Raises:
        DataError: the file has no column of that name.
        UnreadableFile: it is not readable as such.
    """
    columns = [text_field] if id_field is None else [text_field, id_field]
    number = 0
    with one_line(path, "a parquet file" if kind == "parquet" else "an arrow file"), uncompressed(path) as plain:
        for batch in parquet_batches(plain, columns) if kind == "parquet" else arrow_batches(plain):
            if missing := [column for column in columns if column not in batch.schema.names]:
                raise DataError(f'{path} has no column "{missing[0]}": its columns are {", ".join(batch.schema.names)}')
            selected = batch.select(columns)
            selected.validate(full=True)
            for row in selected.to_pylist():
                number += 1
                yield from_fields(row, f"{name}:{number}", f"{path} row {number}", text_field, id_field, max_bytes)
