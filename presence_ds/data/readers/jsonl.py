"""One JSON object per line."""

import json
import re
from collections.abc import Iterator

from presence_ds.data.readers.fields import from_fields
from presence_ds.data.readers.hub_file import File
from presence_ds.data.readers.lines import BYTE_ORDER_MARK, DEFAULT_MAX_BYTES, Lines, too_long
from presence_ds.data.readers.part import Part
from presence_ds.data.rows import BadRow, Document, UnreadableFile

OBJECTS = re.compile(rb"\}[ \t]*\r[ \t\r]*\{")


def read_jsonl(
    path: File,
    name: str,
    text_field: str,
    id_field: str | None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    part: Part | None = None,
) -> Iterator[Document | BadRow]:
    """Read one JSON object per line; blank lines are ignored. Ids are ``name:line`` unless ``id_field`` is given.

    A line of more than ``max_bytes`` is a bad row, of which no more than that is held in memory.

    Raises:
        UnreadableFile: there are carriage returns where lines ought to end.
    """
    part = part or Part()
    lines = Lines(path, part, max_bytes, text=False)
    for number, raw in lines:
        if raw.isspace() or not part.takes():
            continue
        location = lines.location(number)
        if len(raw) > max_bytes:
            check_line_ends(path, raw)
            yield BadRow(location, too_long(max_bytes))
            continue
        try:
            row = json.loads(raw.removeprefix(BYTE_ORDER_MARK).decode())
        except UnicodeDecodeError:
            yield BadRow(location, "not valid UTF-8")
        except (ValueError, RecursionError) as error:
            check_line_ends(path, raw)
            yield BadRow(location, f"not valid JSON ({error})")
        else:
            yield from_fields(row, lines.id(name, number), location, text_field, id_field, max_bytes)


def check_line_ends(path: File, raw: bytes) -> None:
    """Raise `UnreadableFile` if a line that cannot be used is several objects with carriage returns between them."""
    if OBJECTS.search(raw):
        raise UnreadableFile(
            f"{path} cannot be read as JSON lines: its lines end in carriage returns (\\r) alone, and must in line "
            f"feeds: convert it (tr '\\r' '\\n')"
        )
