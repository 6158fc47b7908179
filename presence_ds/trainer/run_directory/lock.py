"""One run at a time in a run directory.

Every rank holds a shared lock of the kernel (flock) on one file, which no crash can leave behind: the kernel lets go of
it with the process. A new run must get that lock for itself alone first, so that it never writes beside a rank that has
outlived its run. Some network file systems keep such locks to one machine (BeeGFS unless configured otherwise, Lustre
mounted with localflock), or have none; there the heartbeat decides that rank 0 writes into the file: a run of another
host whose heart beats is alive, and one left by a crash is silent. No clocks are compared, only contents.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.errors import ConfigError

if TYPE_CHECKING:
    from presence_ds.trainer.ranks.process_group import Ranks


BEAT = 5.0  # seconds between two heartbeats
SILENCE = 20.0  # seconds after which a heart that has not beaten is taken to have stopped
PATIENCE = 60.0  # seconds a run waits: the last process of a killed run may take a while to go
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK)


class RunLock:
    """Held by every rank of a run from `acquire` to the end of its process, or of the ``with`` block."""

    def __init__(self) -> None:
        self._descriptor = -1  # of no file
        self._kernel_locks = True
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None

    def acquire(self, path: Path, ranks: Ranks, *, patience: float = PATIENCE) -> None:
        """Take the lock file ``path`` on every rank, waiting up to ``patience`` seconds for another run to go.

        Raises:
            ConfigError: another run uses the directory of ``path``; the same on every rank.
        """
        ranks.on_main(partial(self.take, path, patience=patience))
        with ranks.agreement():
            if not ranks.is_main:
                self._descriptor = os.open(path, os.O_RDWR)
                if not self._flock(fcntl.LOCK_SH):
                    raise _in_use(path)

    def take(self, path: Path, *, patience: float = PATIENCE, silence: float = SILENCE) -> None:
        """Rank 0's part of `acquire`: get the lock alone, then share it with the ranks that follow."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + patience
        while not self._flock(fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise _in_use(path)
            time.sleep(min(0.5, patience))
        before = path.read_bytes()
        while before and (not self._kernel_locks or _parse(before).get("host") != socket.gethostname()):
            time.sleep(silence)
            now = path.read_bytes()  # opening a file makes a network file system look again
            if now in (b"", before):
                break
            if time.monotonic() > deadline:
                raise _in_use(path)
            before = now
        self._started = time.strftime("%Y-%m-%d %H:%M:%S %z")
        self._beat(0)
        if not self._flock(fcntl.LOCK_SH):  # another run came in between
            raise _in_use(path)
        self._heart = threading.Thread(target=self._keep_beating, name="run lock", daemon=True)
        self._heart.start()

    def _flock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                self._kernel_locks = False
                return True
            return False
        return True

    def _beat(self, number: int) -> None:
        record = {"host": socket.gethostname(), "pid": os.getpid(), "started": self._started, "beat": number}
        text = json.dumps(record).encode()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)

    def _keep_beating(self) -> None:
        beats = count(1)
        while not self._stop.wait(BEAT):
            with suppress(OSError):  # a full disk, say, which the run itself will meet
                self._beat(next(beats))

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go; the file stays, empty."""
        if self._descriptor < 0:
            return
        if self._heart is not None:
            self._stop.set()
            self._heart.join()
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1


def read_record(path: Path) -> dict[str, Any]:
    """What the run in progress has written into its lock file, and its last heartbeat; empty where there is none."""
    try:
        return _parse(path.read_bytes())
    except OSError:
        return {}


def _parse(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError:  # between two states
        return {}
    return record if isinstance(record, dict) else {}


def _in_use(path: Path) -> ConfigError:
    record = _parse(path.read_bytes())
    return ConfigError(
        f"run_dir is {path.parent}: it is in use by a run on {record.get('host', 'an unknown host')}, process "
        f"{record.get('pid', 'unknown')}, since {record.get('started', 'an unknown time')}; wait for its end, or name "
        f"another directory"
    )
