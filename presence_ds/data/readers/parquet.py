"""Batches of a parquet file."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.data.readers.arrow import skip_rows

TABLE_BATCH_ROWS = 1000


def count_parquet_rows(path: Path) -> int:
    """Rows of the file, of which no more than the end is read."""
    return int(pq.read_metadata(path).num_rows)


def parquet_batches(path: Path, columns: list[str], start: int = 0) -> Iterator[pa.RecordBatch]:
    """Batches of ``columns`` from row ``start`` on, or where one is missing an empty batch of all that the file has.

    The row group that ``start`` lies in is read from its beginning, and none before it.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as table:
        names = table.schema_arrow.names
        if set(columns) <= set(names):
            group = 0
            while group < table.num_row_groups and start >= table.metadata.row_group(group).num_rows:
                start -= table.metadata.row_group(group).num_rows
                group += 1
            groups = range(group, table.num_row_groups)
            yield from skip_rows(table.iter_batches(TABLE_BATCH_ROWS, row_groups=groups, columns=columns), start)
        else:
            yield pa.RecordBatch.from_pylist([], schema=table.schema_arrow)
