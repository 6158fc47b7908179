"""Locks that a killed process has left on DeepSpeed's compiled operators.

torch builds and loads an operator under a lock that is the mere existence of a file. A process killed at that moment
leaves the file, and every later one waits for it without end and without a word.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "fuse", "9p", "wekafs")


def clear_stale_locks(local_rank: int, folder: str | None = None) -> None:
    """Remove the locks in ``folder`` (TORCH_EXTENSIONS_DIR) that no process holds, or wait until local rank 0 has.

    A holder keeps the file open. On a network file system it may be one of another machine: nothing is removed there.
    """
    path = Path(folder or os.environ.get("TORCH_EXTENSIONS_DIR", ""))
    if not path.is_dir() or _is_network(path):
        return
    for lock in path.glob("*/lock"):
        while lock.exists() and not _is_open(lock):
            if local_rank == 0:
                lock.unlink(missing_ok=True)
            else:
                time.sleep(0.1)


def _is_open(path: Path) -> bool:
    """Whether a process has the file open, as far as this user may know; another user's file counts as open."""
    with suppress(FileNotFoundError):
        if path.stat().st_uid != os.getuid():
            return True
    target = str(path.resolve())
    return any(target in _open_files(folder) for folder in Path("/proc").glob("[0-9]*/fd"))


def _open_files(folder: Path) -> list[str]:
    with suppress(FileNotFoundError, PermissionError):  # ended in the meantime, or another user's
        return [_target(entry) for entry in folder.iterdir()]
    return []


def _target(entry: Path) -> str:
    with suppress(FileNotFoundError):  # closed in the meantime
        return os.readlink(entry)
    return ""


def _is_network(path: Path) -> bool:
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(mount.mountpoint)]
    kind = max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""
    return kind.startswith(NETWORK)
