"""Readers of local files, one per format: each yields a file's documents and its bad rows, in order.

Text and json are read here rather than through the loaders of ``datasets``, which stop at the first malformed row and
do not say where a row stood; parquet and arrow through pyarrow, which gives every row before a fault.
"""

import bz2
import gzip
import json
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from presence_ds.data.rows import BadRow, Document, UnreadableFile, text_problem
from presence_ds.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TABLE_BATCH_ROWS = 1000
ARROW_FILE_MAGIC = b"ARROW1"
CHUNK_BYTES = 1 << 20
DEFAULT_MAX_BYTES = 64_000_000  # of a document
# Each of these reads members that were written one after another, and raises on a member that is cut short. What fsspec
# infers for .zst depends on what is installed, and one of its choices ends silently in both cases.
DECOMPRESSORS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstd.open,
}
# pyarrow's errors are among the first three.
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError)


def read_text(
    path: Path, name: str, documents: Literal["file", "line", "paragraph"], max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[Document | BadRow]:
    """Read a UTF-8 text file: the whole file as one document, one per line, or one per paragraph (between blank lines).

    Ids are ``name`` for a whole file, ``name:line`` otherwise, with lines counted from 1. A document of more than
    ``max_bytes`` is a bad row, of which no more than that is held in memory.
    """
    if documents == "file":
        with _open(path) as stream:
            raw = stream.read(max_bytes + 1)
        yield _decode_document(raw, name, path, 1, max_bytes)
        return
    block = bytearray()
    first_line = 1
    with _open(path) as stream:
        for number, raw in _lines(stream, max_bytes):
            if raw.isspace():
                if block:
                    yield _decode_document(bytes(block), f"{name}:{first_line}", path, first_line, max_bytes)
                    block.clear()
            elif documents == "line":
                yield _decode_document(raw, f"{name}:{number}", path, number, max_bytes)
            else:
                if not block:
                    first_line = number
                block += raw[: max_bytes + 1 - len(block)]
    if block:
        yield _decode_document(bytes(block), f"{name}:{first_line}", path, first_line, max_bytes)


def _lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; of a line longer than ``max_bytes`` only the first ``max_bytes`` + 1 bytes."""
    number = 0
    while raw := stream.readline(max_bytes + 1):
        number += 1
        yield number, raw
        if len(raw) > max_bytes:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(CHUNK_BYTES)


def _too_long(max_bytes: int) -> str:
    return f"longer than max_document_megabytes {max_bytes / 1e6:g}"


def _decode_document(raw: bytes, document_id: str, path: Path, first_line: int, max_bytes: int) -> Document | BadRow:
    if len(raw) > max_bytes:
        return BadRow(f"{path} line {first_line}", _too_long(max_bytes))
    try:
        text = raw.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        return BadRow(f"{path} line {line}", "not valid UTF-8")
    text = text.replace("\r\n", "\n")
    if problem := text_problem(text, "the text"):
        return BadRow(f"{path} line {first_line}", problem)
    return Document(document_id, text)


def read_jsonl(
    path: Path, name: str, text_field: str, id_field: str | None, max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[Document | BadRow]:
    """Read one JSON object per line; blank lines are ignored. Ids are ``name:line`` unless ``id_field`` is given.

    A line of more than ``max_bytes`` is a bad row, of which no more than that is held in memory.
    """
    with _open(path) as stream:
        for number, raw in _lines(stream, max_bytes):
            if raw.isspace():
                continue
            location = f"{path} line {number}"
            if len(raw) > max_bytes:
                yield BadRow(location, _too_long(max_bytes))
                continue
            try:
                row = json.loads(raw.removeprefix(BYTE_ORDER_MARK).decode())
            except UnicodeDecodeError:
                yield BadRow(location, "not valid UTF-8")
            except (ValueError, RecursionError) as error:
                yield BadRow(location, f"not valid JSON ({error})")
            else:
                yield _from_fields(row, f"{name}:{number}", location, text_field, id_field, max_bytes)


def read_json(
    path: Path, name: str, text_field: str, id_field: str | None, max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[Document | BadRow]:
    """Read a JSON file: an array of objects, an object of arrays of one length (columns), or one object per line.

    A file of the first two kinds is held in memory. Its ids are ``name:row``, counted from 1, unless ``id_field`` is
    given; those of lines are as in `read_jsonl`.

    Raises:
        DataError: the file is of another kind.
        UnreadableFile: it is not valid JSON.
    """
    with _open(path) as stream:
        first = _json_or_none(stream.readline(max_bytes + 1))
    if isinstance(first, dict) and not _is_columns(first):
        yield from read_jsonl(path, name, text_field, id_field, max_bytes)
        return
    with _open(path, "a JSON file") as stream:
        try:
            content = json.loads(stream.read().removeprefix(BYTE_ORDER_MARK).decode())
        except RecursionError as error:
            raise ValueError(error) from None
    if isinstance(content, dict) and _is_columns(content):
        if len({len(column) for column in content.values()}) > 1:
            raise DataError(f"{path} is an object of arrays of different lengths: they must have one length")
        content = [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
    if not isinstance(content, list):
        raise DataError(
            f"{path} is one JSON value of type {type(content).__name__}: it must be an array of objects, an object of "
            f"arrays, or one object per line"
        )
    for number, row in enumerate(content, start=1):
        yield _from_fields(row, f"{name}:{number}", f"{path} row {number}", text_field, id_field, max_bytes)


def _json_or_none(raw: bytes) -> object:
    try:
        return json.loads(raw.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return None


def _is_columns(value: dict[str, Any]) -> bool:
    return all(isinstance(column, list) for column in value.values())


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
    with _one_line(path, "a parquet file" if kind == "parquet" else "an arrow file"), _uncompressed(path) as plain:
        for batch in _parquet_batches(plain, columns) if kind == "parquet" else _arrow_batches(plain):
            if missing := [column for column in columns if column not in batch.schema.names]:
                raise DataError(f'{path} has no column "{missing[0]}": its columns are {", ".join(batch.schema.names)}')
            selected = batch.select(columns)
            selected.validate(full=True)
            for row in selected.to_pylist():
                number += 1
                yield _from_fields(row, f"{name}:{number}", f"{path} row {number}", text_field, id_field, max_bytes)


def _parquet_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of ``columns``, or where one is missing an empty batch of all that the file has."""
    with pq.ParquetFile(path, page_checksum_verification=True) as table:
        names = table.schema_arrow.names
        if set(columns) <= set(names):
            yield from table.iter_batches(TABLE_BATCH_ROWS, columns=columns)
        else:
            yield pa.RecordBatch.from_pylist([], schema=table.schema_arrow)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        if source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC:
            with pa.ipc.open_file(source) as table:
                yield from (table.get_batch(index) for index in range(table.num_record_batches))
        else:
            source.seek(0)
            with pa.ipc.open_stream(source) as stream:
                yield from stream


def _from_fields(
    row: object, default_id: str, location: str, text_field: str, id_field: str | None, max_bytes: int
) -> Document | BadRow:
    if not isinstance(row, dict):
        return BadRow(location, f"not a JSON object but a {type(row).__name__}")
    text = row.get(text_field)
    if problem := text_problem(text, f'field "{text_field}"'):
        return BadRow(location, problem)
    assert isinstance(text, str)
    if 4 * len(text) > max_bytes and len(text.encode()) > max_bytes:  # UTF-8 has at most four bytes per character
        return BadRow(location, _too_long(max_bytes))
    if id_field is None:
        return Document(default_id, text)
    document_id = row.get(id_field)
    if isinstance(document_id, int) and not isinstance(document_id, bool):
        document_id = str(document_id)
    if problem := text_problem(document_id, f'field "{id_field}"'):
        return BadRow(location, problem)
    assert isinstance(document_id, str)
    return Document(document_id, text)


@contextmanager
def _open(path: Path, kind: str = "a file") -> Iterator[IO[bytes]]:
    """Open for reading, decompressing by the ending."""
    with _one_line(path, kind), DECOMPRESSORS.get(path.suffix.lower(), open)(path, "rb") as stream:
        yield stream


@contextmanager
def _uncompressed(path: Path) -> Iterator[Path]:
    """The file, or a temporary copy of it without its compression, for formats that are read in any order."""
    if path.suffix.lower() not in DECOMPRESSORS:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="presence_ds-") as folder:
        copy = Path(folder, path.stem)
        with _open(path) as packed, copy.open("wb") as plain:
            shutil.copyfileobj(packed, plain, CHUNK_BYTES)
        yield copy


@contextmanager
def _one_line(path: Path, kind: str) -> Iterator[None]:
    """Turn what a library raises about an unreadable file into one line that names the file."""
    try:
        yield
    except READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableFile(f"{path} cannot be read as {kind}: {reason}") from error
