"""One JSON object per line."""

import json
import re
from collections.abc import Iterator

from presence_ds.data.readers.documents import BadRow, Document, Fields, UnreadableFile, too_long
from presence_ds.data.readers.hub_file import File
from presence_ds.data.readers.lines import BYTE_ORDER_MARK, Lines
from presence_ds.data.readers.part import Part

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
            check_line_ends(path, raw)
            yield BadRow(location, too_long(fields.max_bytes))
            continue
        try:
            row = json.loads(raw.removeprefix(BYTE_ORDER_MARK).decode())
        except UnicodeDecodeError:
            yield BadRow(location, "not valid UTF-8")
        except (ValueError, RecursionError) as error:
            check_line_ends(path, raw)
            yield BadRow(location, f"not valid JSON ({error})")
        else:
            yield fields.document(row, lines.id(name, number), location)


def check_line_ends(path: File, raw: bytes) -> None:
    """Raise `UnreadableFile` if a line that cannot be used is several objects with carriage returns between them."""
    if OBJECTS.search(raw):
        raise UnreadableFile(
            f"{path} cannot be read as JSON lines: its lines end in carriage returns (\\r) alone, and must in line "
            f"feeds: convert it (tr '\\r' '\\n')"
        )
