"""Readers of files, local or on the hub: each yields a file's documents and its bad rows, in order.

Text and json are read here rather than through the loaders of ``datasets``, which stop at the first malformed row and
do not say where a row stood; parquet and arrow through pyarrow, which gives every row before a fault.
"""

from typing import TYPE_CHECKING

from presence_ds.lazy import lazy_names

if TYPE_CHECKING:
    from presence_ds.data.readers.checksums import check_unchanged
    from presence_ds.data.readers.compression import DECOMPRESSORS
    from presence_ds.data.readers.hub_file import File, HubFile
    from presence_ds.data.readers.json import read_json
    from presence_ds.data.readers.jsonl import read_jsonl
    from presence_ds.data.readers.lines import DEFAULT_MAX_BYTES
    from presence_ds.data.readers.part import START, Part, Place
    from presence_ds.data.readers.table import read_table
    from presence_ds.data.readers.text import read_text
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "checksums": ("check_unchanged",),
            "compression": ("DECOMPRESSORS",),
            "hub_file": ("File", "HubFile"),
            "json": ("read_json",),
            "jsonl": ("read_jsonl",),
            "lines": ("DEFAULT_MAX_BYTES",),
            "part": ("START", "Part", "Place"),
            "table": ("read_table",),
            "text": ("read_text",),
        },
    )

__all__ = [
    "DECOMPRESSORS",
    "DEFAULT_MAX_BYTES",
    "START",
    "File",
    "HubFile",
    "Part",
    "Place",
    "check_unchanged",
    "read_json",
    "read_jsonl",
    "read_table",
    "read_text",
]
