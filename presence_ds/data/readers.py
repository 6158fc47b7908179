"""Readers of local files, one per format: each yields a file's documents and its bad rows, in order.

Text and jsonl are read line by line rather than through the loaders of ``datasets``, which stop at the first malformed
row and do not say where a row stood; parquet goes through ``datasets``.
"""

import glob
import json
import logging
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import datasets
from fsspec.implementations.local import LocalFileSystem

from presence_ds.data.rows import BadRow, Document, text_problem
from presence_ds.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PARQUET_BATCH_ROWS = 1000
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)  # pyarrow's errors are among the first three


def read_text(path: Path, name: str, documents: Literal["file", "line", "paragraph"]) -> Iterator[Document | BadRow]:
    """Read a UTF-8 text file: the whole file as one document, one per line, or one per paragraph (between blank lines).

    Ids are ``name`` for a whole file, ``name:line`` otherwise, with lines counted from 1.
    """
    if documents == "file":
        with _open(path) as stream:
            raw = stream.read()
        yield _decode_document(raw, name, path, 1)
        return
    block: list[bytes] = []
    first_line = 1
    with _open(path) as stream:
        for number, raw in enumerate(stream, start=1):
            if raw.isspace():
                if block:
                    yield _decode_document(b"".join(block), f"{name}:{first_line}", path, first_line)
                    block = []
            elif documents == "line":
                yield _decode_document(raw, f"{name}:{number}", path, number)
            else:
                if not block:
                    first_line = number
                block.append(raw)
    if block:
        yield _decode_document(b"".join(block), f"{name}:{first_line}", path, first_line)


def _decode_document(raw: bytes, document_id: str, path: Path, first_line: int) -> Document | BadRow:
    try:
        text = raw.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        return BadRow(f"{path} line {line}", "not valid UTF-8")
    text = text.replace("\r\n", "\n")
    if problem := text_problem(text, "the text"):
        return BadRow(f"{path} line {first_line}", problem)
    return Document(document_id, text)


def read_jsonl(path: Path, name: str, text_field: str, id_field: str | None) -> Iterator[Document | BadRow]:
    """Read one JSON object per line; blank lines are ignored. Ids are ``name:line`` unless ``id_field`` is given."""
    with _open(path) as stream:
        for number, raw in enumerate(stream, start=1):
            if raw.isspace():
                continue
            location = f"{path} line {number}"
            try:
                row = json.loads(raw.removeprefix(BYTE_ORDER_MARK).decode())
            except UnicodeDecodeError:
                yield BadRow(location, "not valid UTF-8")
            except (ValueError, RecursionError) as error:
                yield BadRow(location, f"not valid JSON ({error})")
            else:
                if isinstance(row, dict):
                    yield _from_fields(row, f"{name}:{number}", location, text_field, id_field)
                else:
                    yield BadRow(location, f"not a JSON object but a {type(row).__name__}")


def read_parquet(path: Path, name: str, text_field: str, id_field: str | None) -> Iterator[Document | BadRow]:
    """Read the rows of a parquet file. Ids are ``name:row``, counted from 1, unless ``id_field`` is given.

    Raises:
        DataError: the file is not readable as parquet or has no column of that name.
    """
    columns = [text_field] if id_field is None else [text_field, id_field]
    with _one_line(path, "parquet file"):
        table = datasets.load_dataset("parquet", data_files=[glob.escape(str(path))], split="train", streaming=True)
        if missing := [column for column in columns if column not in table.column_names]:
            raise DataError(f'{path} has no column "{missing[0]}": its columns are {", ".join(table.column_names)}')
        number = 0
        for batch in table.select_columns(columns).iter(batch_size=PARQUET_BATCH_ROWS):
            for values in zip(*(batch[column] for column in columns), strict=True):
                number += 1
                row = dict(zip(columns, values, strict=True))
                yield _from_fields(row, f"{name}:{number}", f"{path} row {number}", text_field, id_field)


def _from_fields(
    row: dict[str, object], default_id: str, location: str, text_field: str, id_field: str | None
) -> Document | BadRow:
    text = row.get(text_field)
    if problem := text_problem(text, f'field "{text_field}"'):
        return BadRow(location, problem)
    assert isinstance(text, str)
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
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open for reading, decompressing .gz, .bz2 and .xz by their ending."""
    with _one_line(path, "file"), LocalFileSystem().open(str(path), "rb", compression="infer") as stream:
        yield stream


@contextmanager
def _one_line(path: Path, kind: str) -> Iterator[None]:
    """Turn what a library raises and logs about an unreadable file into one line that names the file."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as a {kind}: {reason}") from error
    finally:
        logger.setLevel(level)
