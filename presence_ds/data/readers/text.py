"""UTF-8 text."""

from collections.abc import Iterator
from typing import Literal

from presence_ds.data.readers.compression import open_file
from presence_ds.data.readers.documents import BadRow, Document, text_problem, too_long
from presence_ds.data.readers.hub_file import File
from presence_ds.data.readers.lines import BYTE_ORDER_MARK, Lines, check_head
from presence_ds.data.readers.part import Part, Place


def read_text(
    path: File, name: str, documents: Literal["file", "line", "paragraph"], max_bytes: int, part: Part
) -> Iterator[Document | BadRow]:
    """Read a UTF-8 text file: the whole file as one document, one per line, or one per paragraph (between blank lines).

    Lines end with a line feed, a carriage return, or both; documents have line feeds. Ids are ``name`` for a whole
    file, ``name:line`` otherwise, with lines counted from 1. A document of more than ``max_bytes`` is a bad row, of
    which no more than that is held in memory.
    """
    lines = Lines(path, part, max_bytes, text=True)
    if documents == "file":
        if part.place.row == 0:
            part.place = Place(row=1)
            if part.takes():
                with open_file(path) as stream:
                    check_head(stream)
                    raw = stream.read(max_bytes + 1)
                yield _decode_document(raw, name, lines, 1, max_bytes)
        return
    block = bytearray()
    first_line = 1
    for number, raw in lines:
        if not raw.isspace():
            first_line = first_line if block else number
            block += raw[: max_bytes + 1 - len(block)]
        if block and (documents == "line" or raw.isspace()):
            if part.takes():
                yield _decode_document(bytes(block), lines.id(name, first_line), lines, first_line, max_bytes)
            block.clear()
    if block and part.takes():
        yield _decode_document(bytes(block), lines.id(name, first_line), lines, first_line, max_bytes)


def _decode_document(raw: bytes, document_id: str, lines: Lines, first_line: int, max_bytes: int) -> Document | BadRow:
    if len(raw) > max_bytes:
        return BadRow(lines.location(first_line), too_long(max_bytes))
    if b"\0" in raw:
        return BadRow(lines.location(first_line), "holds a NUL byte, as text has none and binary files and UTF-16 do")
    raw = raw.removeprefix(BYTE_ORDER_MARK).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        return BadRow(lines.location(line), "not valid UTF-8")
    if problem := text_problem(text, "the text"):
        return BadRow(lines.location(first_line), problem)
    return Document(document_id, text)
