"""Batches of a parquet file."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TABLE_BATCH_ROWS = 1000


def parquet_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of ``columns``, or where one is missing an empty batch of all that the file has."""
    with pq.ParquetFile(path, page_checksum_verification=True) as table:
        names = table.schema_arrow.names
        if set(columns) <= set(names):
            yield from table.iter_batches(TABLE_BATCH_ROWS, columns=columns)
        else:
            yield pa.RecordBatch.from_pylist([], schema=table.schema_arrow)
