"""One JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path

from presence_ds.data.readers.compression import open_file
from presence_ds.data.readers.fields import from_fields
from presence_ds.data.readers.lines import BYTE_ORDER_MARK, DEFAULT_MAX_BYTES, lines, too_long
from presence_ds.data.rows import BadRow, Document


def read_jsonl(
    path: Path, name: str, text_field: str, id_field: str | None, max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[Document | BadRow]:
    """Read one JSON object per line; blank lines are ignored. Ids are ``name:line`` unless ``id_field`` is given.

    A line of more than ``max_bytes`` is a bad row, of which no more than that is held in memory.
    """
    with open_file(path) as stream:
        for number, raw in lines(stream, max_bytes):
            if raw.isspace():
                continue
            location = f"{path} line {number}"
            if len(raw) > max_bytes:
                yield BadRow(location, too_long(max_bytes))
                continue
            try:
                row = json.loads(raw.removeprefix(BYTE_ORDER_MARK).decode())
            except UnicodeDecodeError:
                yield BadRow(location, "not valid UTF-8")
            except (ValueError, RecursionError) as error:
                yield BadRow(location, f"not valid JSON ({error})")
            else:
                yield from_fields(row, f"{name}:{number}", location, text_field, id_field, max_bytes)
