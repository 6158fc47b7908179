"""Small files of every format, and reading them as a source."""

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from presence_ds.data import SourceConfig
from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.reading import read_documents
from presence_ds.data.sources.tally import Skipped
from presence_ds.errors import DataError


def read(source: SourceConfig, max_bad_share: float = 0.0) -> tuple[list[Document], Skipped]:
    skipped = Skipped()
    return list(read_documents(source, find_files(source), max_bad_share, skipped)), skipped


def error_of(source: SourceConfig, max_bad_share: float = 0.0) -> str:
    """The message of the `DataError` that reading raises, which must be one line."""
    with pytest.raises(DataError) as caught:
        read(source, max_bad_share)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table_bytes(kind: str, texts: list[str]) -> bytes:
    table, sink = pa.table({"text": texts}), pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, sink)
    else:
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
    return sink.getvalue().to_pybytes()


FILES = {  # name before the compression, and two documents in that format
    "a.txt": b"one\ntwo\n",
    "a.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "a.json": b'\xef\xbb\xbf[{"text": "one"}, {"text": "two"}]',
    "columns.json": b'{\n"text": ["one", "two"],\n"n": [1, 2]}',
    "lines.json": b'{"text": "one"}\n{"text": "two"}\n',
    "a.parquet": table_bytes("parquet", ["one", "two"]),
    "stream.arrow": table_bytes("stream", ["one", "two"]),
    "file.arrow": table_bytes("file", ["one", "two"]),
}


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
