"""Writing a rank's files in a thread, from a copy in host memory, while training goes on.

DeepSpeed's states are serialised as it hands them over, to the bytes that a file would hold, into memory that is kept
from one checkpoint to the next (fresh memory costs more than the copy): training may change them as soon as the call
returns. Hashing, writing and syncing let go of the interpreter and are left to the thread, which takes part in no
collective.
"""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch

from presence_ds.trainer.checkpoint.manifest import CHUNK
from presence_ds.trainer.checkpoint.writer import CheckpointWriter, HashingFile, Written


class BackgroundWriter(CheckpointWriter):
    """A `CheckpointWriter` that copies what it is to save, and writes the copies between `start` and `finish`."""

    def __init__(self) -> None:
        super().__init__()
        self._memory: list[Snapshot] = []  # of the files of a checkpoint, which come in the same order every time
        self._pending: list[tuple[Path, Snapshot]] = []
        self._thread: Thread | None = None
        self._abandoned = Event()

    def begin(self, folder: Path) -> None:
        super().begin(folder)
        self._pending = []

    def save(self, state_dict: Any, path: str | Path) -> None:
        """DeepSpeed's call for one file."""
        if len(self._memory) == len(self._pending):
            self._memory.append(Snapshot())
        snapshot = self._memory[len(self._pending)]
        snapshot.clear()
        torch.save(state_dict, snapshot)  # type: ignore[arg-type]  # it calls write and flush
        self._pending.append((Path(path), snapshot))

    def start(self) -> None:
        self._thread = Thread(target=self._write, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> Written:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._written

    def abandon(self) -> None:
        self._abandoned.set()
        self.finish()

    def _write(self) -> None:
        try:
            for path, snapshot in self._pending:
                if self._written.error is not None:
                    return
                file = HashingFile(path)
                for chunk in snapshot.chunks():
                    if self._abandoned.is_set():
                        return
                    file.write(chunk)
                self._close(file)
        except Exception as error:  # whatever it is, the other ranks have to hear of it
            self._written.error = f"{type(error).__name__}: {error}"


class Snapshot:
    """Bytes in host memory, written by torch.save."""

    def __init__(self) -> None:
        self._memory = bytearray()
        self._size = 0

    def clear(self) -> None:
        """Forget the bytes and keep their memory."""
        self._size = 0

    def write(self, data: Any) -> int:
        """Append bytes."""
        known = min(len(self._memory) - self._size, len(data))
        with memoryview(self._memory) as memory:  # not a slice of the bytearray, which would copy twice
            memory[self._size : self._size + known] = data[:known]
        self._memory += data[known:]
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""

    def chunks(self) -> Iterator[memoryview]:
        """All bytes, in pieces."""
        with memoryview(self._memory) as memory:
            for start in range(0, self._size, CHUNK):
                yield memory[start : min(start + CHUNK, self._size)]
