"""What TensorBoard's files hold, to go on after a checkpoint: tensorboard has no way to cut one.

They are TFRecord files: of every event its length in 8 bytes and a checksum of that in 4, then the event, a message of
``tensorboard.compat.proto``, and its checksum in 4.
"""

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LENGTH, CHECKSUM = struct.Struct("<Q"), 4  # bytes


def cut(folder: Path, first_step: int) -> int:
    """Drop the events of ``first_step`` and later from the files in ``folder``; the last step that is left, or 0.

    A file that is cut is a new one of the same name, so that a TensorBoard that has the old one open reads that to its
    end.
    """
    last = 0
    for file in sorted(folder.glob("events.out.tfevents.*")):
        end = 0
        for event, after in events(file):
            if event.step >= first_step:
                break
            if event.HasField("summary"):
                last, end = max(last, event.step), after
        if end < file.stat().st_size:
            _shorten(file, end)
    return last


def events(file: Path) -> Iterator[tuple[Any, int]]:
    """Every event of ``file`` and where it ends, in bytes; it ends at what is cut short, or is none."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    with open(file, "rb") as opened:
        end = 0
        while len(head := opened.read(LENGTH.size + CHECKSUM)) == LENGTH.size + CHECKSUM:
            (size,) = LENGTH.unpack_from(head)
            content = opened.read(size + CHECKSUM)
            end += len(head) + len(content)
            if size == 0 or len(content) < size + CHECKSUM:  # of zeros is what a crash leaves of a machine
                return
            try:
                yield Event.FromString(content[:size]), end
            except DecodeError:
                return


def _shorten(file: Path, size: int) -> None:
    """Leave the first ``size`` bytes of ``file``; nothing of it, if there are none."""
    if size == 0:
        file.unlink()
        return
    kept = file.with_name("kept.tmp")  # a name that TensorBoard does not look at
    shutil.copyfile(file, kept)
    os.truncate(kept, size)
    os.replace(kept, file)
