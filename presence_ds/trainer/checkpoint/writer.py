"""Writing a rank's files: hashed and synced as they are written, and a failure kept for later instead of raised.

DeepSpeed's ``save_checkpoint`` contains collectives. A rank that left it with an error, because its disk is full, would
leave the others waiting; so the writer lets it run to its end and says afterwards what went wrong.

While training goes on the files are written from a copy in host memory. DeepSpeed's states are serialised as it hands
them over, to the bytes that a file would hold, into memory that is kept from one checkpoint to the next (fresh memory
costs more than the copy): training may change them as soon as the call returns. Hashing, writing and syncing let go of
the interpreter and are left to a thread, which takes part in no collective.
"""

import hashlib
import os
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from presence_ds.engine.zero import copy_recovery_scripts_once
from presence_ds.errors import ConfigError
from presence_ds.trainer.checkpoint.manifest import CHUNK, FileRecord


@dataclass
class Written:
    """What a rank has written into a checkpoint.

    Attributes:
        files: by their path in the checkpoint.
        error: why not everything is there, or None.
    """

    files: dict[str, FileRecord] = field(default_factory=dict)
    error: str | None = None


class CheckpointWriter(TorchCheckpointEngine):
    """The part of DeepSpeed's checkpointing that puts bytes on a disk; its files are those of DeepSpeed's own one."""

    def __init__(self, *, asynchronous: bool) -> None:
        """``asynchronous``: copy what is to be saved, and write the copies between `start` and `finish`."""
        super().__init__()
        self._asynchronous = asynchronous
        self._written = Written()
        self._memory: list[BytesIO] = []  # of the files of a checkpoint, which come in the same order every time
        self._thread: Thread | None = None
        self._abandoned = Event()

    def begin(self, folder: Path) -> None:
        """Start a checkpoint, all files of which lie in ``folder``."""
        self._folder = folder
        self._written = Written()
        self._pending: list[tuple[Path, BytesIO, int]] = []  # with the number of bytes

    def start(self) -> None:
        """Everything is saved: write it, if it has not been written already."""
        if self._pending:
            self._thread = Thread(target=self._write, name="checkpoint", daemon=True)
            self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether `finish` would have to wait."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> Written:
        """What was written since `begin`, all of it on the disk."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._written

    def abandon(self) -> None:
        """Leave the checkpoint as it is, unfinished."""
        self._abandoned.set()
        self.finish()

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """DeepSpeed's call for a folder to write to."""
        try:
            os.makedirs(path, exist_ok=exist_ok)
        except OSError as error:
            self._failed(error)

    def save(self, state_dict: Any, path: str | Path) -> None:
        """DeepSpeed's call for one file. After a failure the remaining files are not begun."""
        if self._asynchronous:
            if len(self._memory) == len(self._pending):
                self._memory.append(BytesIO())
            memory = self._memory[len(self._pending)]
            memory.seek(0)
            torch.save(state_dict, memory)
            self._pending.append((Path(path), memory, memory.tell()))
        elif self._written.error is None:
            file = HashingFile(Path(path))
            torch.save(state_dict, file)  # type: ignore[arg-type]  # it calls write and flush
            self._close(file)

    def _write(self) -> None:
        """In the thread."""
        try:
            for path, memory, size in self._pending:
                if self._written.error is not None:
                    return
                file = HashingFile(path)
                with memory.getbuffer() as data:
                    for start in range(0, size, CHUNK):
                        if self._abandoned.is_set():
                            return
                        # released at once: a view that an error's traceback keeps would keep the memory from growing
                        with data[start : min(start + CHUNK, size)] as part:
                            file.write(part)
                self._close(file)
        except Exception as error:  # whatever it is, the other ranks have to hear of it
            self._written.error = f"{type(error).__name__}: {error}"

    def _close(self, file: "HashingFile") -> None:
        try:
            record = file.close()
        except OSError as error:
            self._failed(error)
        else:
            self._written.files[str(file.path.relative_to(self._folder))] = record

    def _failed(self, error: OSError) -> None:
        self._written.error = self._written.error or f"{error.strerror}: {error.filename or self._folder}"


class HashingFile:
    """A file for torch.save, whose C++ writer must not see an exception: the first one is raised by `close`."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` for writing."""
        self.path = path
        self._digest = hashlib.sha256()
        self._size = 0
        self._error: OSError | None = None
        try:
            self._file = open(path, "wb")  # noqa: SIM115 -- closed by close()
        except OSError as error:
            self._error = error

    def write(self, data: Any) -> int:
        """Write bytes, unless writing has failed before."""
        if self._error is None:
            try:
                self._file.write(data)
                self._digest.update(data)
                self._size += len(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Left to `close`."""

    def close(self) -> FileRecord:
        """Sync the file to the disk; size and checksum of it. Raises the first `OSError` there was."""
        if self._error is None:
            try:
                with self._file:
                    self._file.flush()
                    os.fsync(self._file.fileno())
                return FileRecord(self._size, self._digest.hexdigest())
            except OSError as error:
                self._error = error
        raise OSError(self._error.errno, self._error.strerror, str(self.path))


def attach_writer(engine: Any, writer: CheckpointWriter) -> None:
    """Have ``engine`` write its checkpoints through ``writer``.

    `engine.checkpoint_engine` is DeepSpeed's place for such a thing.

    Raises:
        ConfigError: the DeepSpeed JSON chooses another writer or node-local checkpoints; or this DeepSpeed works
            otherwise.
    """
    if not isinstance(getattr(engine, "checkpoint_engine", None), TorchCheckpointEngine):
        raise ConfigError('deepspeed: the JSON file chooses a writer of checkpoints ("checkpoint"): leave it out')
    if engine.use_node_local_storage():
        raise ConfigError(
            'deepspeed: the JSON file sets "use_node_local_storage": leave it out, checkpoints lie in run_dir, which '
            "every rank must see"
        )
    copy_recovery_scripts_once(engine)
    engine.checkpoint_engine = writer
