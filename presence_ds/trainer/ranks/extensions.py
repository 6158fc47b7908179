"""The folder of DeepSpeed's compiled operators: whether it can be used, and locks that a killed process has left in it.

torch builds and loads an operator under a lock that is the mere existence of a file. A process killed at that moment
leaves the file, and every later one waits for it without end and without a word.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
from torch.utils.cpp_extension import get_default_build_root

from presence_ds.errors import ConfigError

NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "fuse", "9p", "wekafs")


def operator_folder() -> Path:
    """Where torch builds operators: TORCH_EXTENSIONS_DIR, or a folder in the user's cache.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    path = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    try:
        path.mkdir(parents=True, exist_ok=True)
        problem = None if os.access(path, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        problem = error.strerror
    if problem is not None:
        raise ConfigError(
            f"DeepSpeed's operators cannot be compiled in {path} ({problem}): set TORCH_EXTENSIONS_DIR to a folder "
            f"that can be written to"
        )
    return path


def clear_stale_locks(local_rank: int, path: Path) -> None:
    """Remove the locks of the operators in ``path`` that no process holds, or wait until local rank 0 has.

    A holder keeps the file open. On a network file system it may be one of another machine: nothing is removed there.
    """
    if _is_network(path):
        return
    for lock in (*path.glob("*/lock"), *path.glob("*/*/lock")):  # torch's own cache has a level more
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
