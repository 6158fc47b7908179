"""UTF-8 text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from presence_ds.data.readers.compression import open_file
from presence_ds.data.readers.lines import BYTE_ORDER_MARK, DEFAULT_MAX_BYTES, lines, too_long
from presence_ds.data.rows import BadRow, Document, text_problem


def read_text(
    path: Path, name: str, documents: Literal["file", "line", "paragraph"], max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[Document | BadRow]:
    """Read a UTF-8 text file: the whole file as one document, one per line, or one per paragraph (between blank lines).

    Ids are ``name`` for a whole file, ``name:line`` otherwise, with lines counted from 1. A document of more than
    ``max_bytes`` is a bad row, of which no more than that is held in memory.
    """
    if documents == "file":
        with open_file(path) as stream:
            raw = stream.read(max_bytes + 1)
        yield _decode_document(raw, name, path, 1, max_bytes)
        return
    block = bytearray()
    first_line = 1
    with open_file(path) as stream:
        for number, raw in lines(stream, max_bytes):
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


def _decode_document(raw: bytes, document_id: str, path: Path, first_line: int, max_bytes: int) -> Document | BadRow:
    if len(raw) > max_bytes:
        return BadRow(f"{path} line {first_line}", too_long(max_bytes))
    try:
        text = raw.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        return BadRow(f"{path} line {line}", "not valid UTF-8")
    text = text.replace("\r\n", "\n")
    if problem := text_problem(text, "the text"):
        return BadRow(f"{path} line {first_line}", problem)
    return Document(document_id, text)
