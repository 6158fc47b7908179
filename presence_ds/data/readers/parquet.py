"""Batches of a parquet file."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.data.readers.arrow import skip_rows
from presence_ds.data.readers.hub_file import File

TABLE_BATCH_ROWS = 1000


@contextmanager
def open_parquet(path: File) -> Iterator[pq.ParquetFile]:
    """Open a file, of which no more than the end is read for that.

    Of a file on the hub pyarrow asks for the columns that it reads, a row group at a time, and for nothing else.
    """
    with ExitStack() as stack:
        source = path if isinstance(path, Path) else stack.enter_context(path.open("rb", buffering=0))
        yield stack.enter_context(pq.ParquetFile(source, page_checksum_verification=True))


def parquet_batches(table: pq.ParquetFile, columns: list[str], start: int = 0) -> Iterator[pa.RecordBatch]:
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
