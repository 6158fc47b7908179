"""Writing a rank's files in a thread, from a copy in host memory, while training goes on.

DeepSpeed's states are serialised as it hands them over, to the bytes that a file would hold, into memory that is kept
from one checkpoint to the next (fresh memory costs more than the copy): training may change them as soon as the call
returns. Hashing, writing and syncing let go of the interpreter and are left to the thread, which takes part in no
collective.
"""

from io import BytesIO
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
        self._memory: list[BytesIO] = []  # of the files of a checkpoint, which come in the same order every time
        self._pending: list[tuple[Path, BytesIO, int]] = []  # with the number of bytes
        self._thread: Thread | None = None
        self._abandoned = Event()

    def begin(self, folder: Path) -> None:
        super().begin(folder)
        self._pending = []

    def save(self, state_dict: Any, path: str | Path) -> None:
        """DeepSpeed's call for one file."""
        if len(self._memory) == len(self._pending):
            self._memory.append(BytesIO())
        memory = self._memory[len(self._pending)]
        memory.seek(0)
        torch.save(state_dict, memory)
        self._pending.append((Path(path), memory, memory.tell()))

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
            for path, memory, size in self._pending:
                if self._written.error is not None:
                    return
                file = HashingFile(path)
                with memory.getbuffer() as data:
                    for start in range(0, size, CHUNK):
                        if self._abandoned.is_set():
                            return
                        file.write(data[start : min(start + CHUNK, size)])
                self._close(file)
        except Exception as error:  # whatever it is, the other ranks have to hear of it
            self._written.error = f"{type(error).__name__}: {error}"
