"""One preparation of a corpus at a time, and none in the place of a corpus that a run reads.

The locks are the kernel's (flock), which go with their process. Where a file system has none, nothing is held.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from presence_ds.data.corpus.manifest import MANIFEST
from presence_ds.errors import DataError

TIME = "%Y-%m-%d %H:%M:%S %z"
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK, errno.EBADF)


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Hold ``directory`` against other writers, and against readers, who hold its manifest, where there is one.

    Raises:
        DataError: another process prepares it, a run reads it, or its folder cannot be written to.
    """
    path = directory.with_name(f".{directory.name}.lock")
    with ExitStack() as stack:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            file = _locked(path, "a+b", fcntl.LOCK_EX)
            if file is None:
                raise DataError(
                    f"{directory} is being prepared{_holder(path)}: wait for the end of that, or name another folder"
                )
            stack.enter_context(file)
            stack.callback(path.unlink, missing_ok=True)
            file.truncate(0)
            file.write(json.dumps([os.getpid(), socket.gethostname(), time.strftime(TIME)]).encode())
            file.flush()
            if (directory / MANIFEST).is_file():
                held = _locked(directory / MANIFEST, "r+b", fcntl.LOCK_EX)
                if held is None:
                    raise DataError(f"{directory} is read by a run: wait for the end of that, or name another folder")
                stack.enter_context(held)
        except OSError as error:
            raise DataError(f"{directory} cannot be written to ({error.strerror}: {error.filename})") from None
        yield


def reading(directory: Path) -> IO[bytes]:
    """An open file: until it is closed no corpus takes the place of that in ``directory``.

    Raises:
        DataError: one is being prepared to take its place, or there is none.
    """
    try:
        file = _locked(directory / MANIFEST, "rb", fcntl.LOCK_SH)
    except OSError as error:
        raise DataError(f"{directory} holds no prepared corpus that can be read ({error.strerror})") from None
    if file is None:
        raise DataError(f"{directory} is being replaced by presence prepare: wait for the end of that")
    return file


def _locked(path: Path, mode: str, kind: int) -> IO[bytes] | None:
    """``path`` opened and locked; None if it is another's. A file that was replaced meanwhile is opened again."""
    while True:
        file: IO[bytes] = open(path, mode)  # noqa: SIM115 -- closed by the caller
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                file.close()
                return None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def _holder(path: Path) -> str:
    """Who has the lock file ``path``, as far as it says."""
    try:
        process, host, since = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return ""
    return f" by process {process} on {host} since {since}"
