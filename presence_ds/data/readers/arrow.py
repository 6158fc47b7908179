"""Batches of an arrow file, in the stream or the file format."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from presence_ds.data.readers.compression import READ_ERRORS
from presence_ds.data.readers.hub_file import File

ARROW_FILE_MAGIC = b"ARROW1"
END_MARK_BYTES = (8, 4)  # of a stream; 4 is what writers before version 0.15 left


def arrow_batches(path: File, start: int = 0) -> Iterator[pa.RecordBatch]:
    """Batches of the file from row ``start`` on; of streams written one after another, all of them.

    Of the batches before it only the heads are read, unless they are compressed or the file is on the hub.

    Raises:
        EOFError: a stream ends without its end mark.
    """
    return skip_rows(_batches(path), start)


def count_arrow_rows(path: File) -> int:
    """Rows of the file, of which only the heads of the batches are read; of a damaged file, those before the fault."""
    rows = 0
    with suppress(*READ_ERRORS):
        for batch in _batches(path):
            rows += batch.num_rows
    return rows


def skip_rows(batches: Iterable[pa.RecordBatch], start: int) -> Iterator[pa.RecordBatch]:
    """``batches`` without their first ``start`` rows; empty ones are kept, as they have a schema."""
    for batch in batches:
        if start == 0:
            yield batch
        elif start < batch.num_rows:
            yield batch.slice(start)
            start = 0
        else:
            start -= batch.num_rows


def _batches(path: File) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) if isinstance(path, Path) else pa.PythonFile(path.open("rb")) as source:
        if source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC:
            with pa.ipc.open_file(source) as table:
                yield from (table.get_batch(index) for index in range(table.num_record_batches))
            return
        source.seek(0)
        yield from _stream(source)
        while source.tell() < source.size():
            yield from _stream(source)


def _stream(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """Batches of the stream that begins here. To pyarrow the end of the file is as good as an end mark."""
    with pa.ipc.open_stream(source) as stream:
        while True:
            position = source.tell()
            try:
                batch = stream.read_next_batch()
            except StopIteration:
                break
            yield batch
    if source.tell() - position not in END_MARK_BYTES:
        raise EOFError("it ends without an end-of-stream mark, so it was cut short or its writer was not closed")
