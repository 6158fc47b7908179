"""What a .wandb file holds, to know whether it has the whole history of a run.

wandb 0.31 has no reader of its own files in Python, so that this is one: LevelDB's log format (blocks of 32 KiB, in
them records or parts of records) after a header, and in every record a message of ``wandb.proto``. Nothing else is
touched of wandb that is not public.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER = 7  # bytes, before the first record
BLOCK = 32 * 1024
PART = struct.Struct("<IHB")  # checksum, bytes, kind
WHOLE, LAST = 1, 4  # kinds of parts that end a record


def steps_in(file: Path) -> list[int]:
    """The step of every line of history in ``file``, in its order; it ends at what is cut short."""
    return [record.history.step.num for record in records(file) if record.HasField("history")]


def records(file: Path) -> Iterator[Any]:
    """Every record of ``file``, a ``Record`` of wandb's protocol."""
    from wandb.proto.wandb_internal_pb2 import Record

    with open(file, "rb") as opened:
        parts = b""
        position = len(opened.read(HEADER))
        while True:
            left = BLOCK - position % BLOCK
            if left < PART.size:  # too little for another part: the block is filled up
                position += len(opened.read(left))
                continue
            head = opened.read(PART.size)
            if len(head) < PART.size:
                return
            _, size, kind = PART.unpack(head)
            content = opened.read(size)
            if len(content) < size or kind == 0:
                return
            position += PART.size + size
            parts += content
            if kind in (WHOLE, LAST):
                yield Record.FromString(parts)
                parts = b""
