"""Arrow files written a batch at a time, and folders that appear complete or not at all."""

import glob
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

BATCH_ROWS = 1000
BATCH_BYTES = 4 * 2**20
LEFTOVER_SECONDS = 24 * 3600  # what is unfinished and was not written to for so long belongs to a killed run


class ArrowWriter(AbstractContextManager["ArrowWriter"]):
    """Append rows to an arrow stream file, holding at most about `BATCH_BYTES` or `BATCH_ROWS` rows in memory."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pa.ipc.new_stream(str(path), schema)
        self._rows: list[Sequence[Any]] = []
        self._bytes = 0

    def write(self, row: Sequence[Any], size: int) -> None:
        """Append one row, its values in the order of the schema, of about ``size`` bytes."""
        self._rows.append(row)
        self._bytes += size
        if self._bytes >= BATCH_BYTES or len(self._rows) >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(c, type=t) for c, t in zip(columns, self._schema.types, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
            self._rows, self._bytes = [], 0

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


@contextmanager
def replaced_when_complete(directory: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``directory`` if the block succeeds, and vanishes if it does not."""
    for leftover in _leftovers(directory):
        shutil.rmtree(leftover, ignore_errors=True)
    unique = uuid.uuid4().hex
    work = directory.with_name(f".{directory.name}.{unique}.partial")
    work.mkdir(parents=True)
    try:
        yield work
        for path in work.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        old = directory.with_name(f".{directory.name}.{unique}.old")
        if directory.exists():
            os.replace(directory, old)
        os.replace(work, directory)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def file_when_complete(path: Path) -> Iterator[TextIO]:
    """A new text file that gets the name ``path`` if the block succeeds, and vanishes if it does not."""
    for leftover in _leftovers(path):
        leftover.unlink(missing_ok=True)
    with unfinished(path) as work:
        with work.open("x", encoding="utf-8", errors="backslashreplace") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, path)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Path of a file beside ``path``, of this process alone, that is gone after the block."""
    work = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield work
    finally:
        work.unlink(missing_ok=True)


def _leftovers(path: Path) -> Iterator[Path]:
    """What runs that were killed have begun to put in the place of ``path``."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        try:
            newest = max(one.stat().st_mtime for one in (leftover, *leftover.rglob("*")))
        except FileNotFoundError:  # another process has just finished it, or removed it
            continue
        if time.time() - newest > LEFTOVER_SECONDS:
            yield leftover


def bring_back(directory: Path) -> None:
    """Undo what a process was killed in the middle of while it replaced ``directory``, and remove what it left."""
    for old in sorted(directory.parent.glob(f".{glob.escape(directory.name)}.*.old")):
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, directory)
