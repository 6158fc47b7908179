"""JSON: one object per line, or a file of any shape."""

import json
import re
from collections.abc import Iterator
from typing import Any

from presence_ds.data.readers.compression import open_file
from presence_ds.data.readers.documents import BadRow, Document, Fields, UnreadableFile, too_long
from presence_ds.data.readers.hub_file import File
from presence_ds.data.readers.lines import BYTE_ORDER_MARK, Lines, check_head
from presence_ds.data.readers.part import Part
from presence_ds.errors import DataError

OBJECTS = re.compile(rb"\}[ \t]*\r[ \t\r]*\{")


def read_jsonl(path: File, name: str, fields: Fields, part: Part) -> Iterator[Document | BadRow]:
    """Read one JSON object per line; blank lines are ignored. Ids are ``name:line`` unless ``fields`` has one.

    A line of more than ``fields.max_bytes`` is a bad row, of which no more than that is held in memory.

    Raises:
        UnreadableFile: there are carriage returns where lines ought to end.
    """
    lines = Lines(path, part, fields.max_bytes, text=False)
    for number, raw in lines:
        if raw.isspace() or not part.takes():
            continue
        location = lines.location(number)
        if len(raw) > fields.max_bytes:
            _check_line_ends(path, raw)
            yield BadRow(location, too_long(fields.max_bytes))
            continue
        try:
            row = json.loads(raw.removeprefix(BYTE_ORDER_MARK).decode())
        except UnicodeDecodeError:
            yield BadRow(location, "not valid UTF-8")
        except (ValueError, RecursionError) as error:
            _check_line_ends(path, raw)
            yield BadRow(location, f"not valid JSON ({error})")
        else:
            yield fields.document(row, lines.id(name, number), location)


def read_json(path: File, name: str, fields: Fields, part: Part) -> Iterator[Document | BadRow]:
    """Read a JSON file: an array of objects, an object of arrays of one length (columns), or one object per line.

    A file of the first two kinds is held in memory. Its ids are ``name:row``, counted from 1, unless ``fields`` has
    one; those of lines are as in `read_jsonl`.

    Raises:
        DataError: the file is of another kind.
        UnreadableFile: it is not valid JSON.
    """
    with open_file(path) as stream:
        check_head(stream)
        line = stream.readline(fields.max_bytes + 1)
    first = _json_or_none(line)
    if isinstance(first, dict) and not _is_columns(first):
        yield from read_jsonl(path, name, fields, part)
        return
    if first is None:
        _check_line_ends(path, line)
    with open_file(path, "a JSON file") as stream:
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
    for number, row in enumerate(content[part.place.row :], start=part.place.row + 1):
        part.place = part.place._replace(row=number)
        if part.takes():
            yield fields.document(row, f"{name}:{number}", f"{path} row {number}")


def _check_line_ends(path: File, raw: bytes) -> None:
    """Raise `UnreadableFile` if a line that cannot be used is several objects with carriage returns between them."""
    if OBJECTS.search(raw):
        raise UnreadableFile(
            f"{path} cannot be read as JSON lines: its lines end in carriage returns (\\r) alone, and must in line "
            f"feeds: convert it (tr '\\r' '\\n')"
        )


def _json_or_none(raw: bytes) -> object:
    try:
        return json.loads(raw.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return None


def _is_columns(value: dict[str, Any]) -> bool:
    return all(isinstance(column, list) for column in value.values())
