"""Batches of an arrow file, in the stream or the file format."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

ARROW_FILE_MAGIC = b"ARROW1"


def arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        if source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC:
            with pa.ipc.open_file(source) as table:
                yield from (table.get_batch(index) for index in range(table.num_record_batches))
        else:
            source.seek(0)
            with pa.ipc.open_stream(source) as stream:
                yield from stream
