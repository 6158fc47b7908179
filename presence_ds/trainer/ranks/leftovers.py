"""What killed processes leave: locks of compiled operators, and buffers in shared memory.

Before 2.14 torch builds and loads an operator under a lock that is the mere existence of a file. A process killed at
that moment leaves the file, and every later one waits for it without end and without a word.

DeepSpeed gives every CPU rank a buffer of 69 MB in /dev/shm, unlinked only when the process ends by itself. It is
memory, and what kills have left of it stays until the machine is started again.
"""

import os
import time
from contextlib import suppress
from glob import glob
from pathlib import Path

import psutil
from torch.utils import cpp_extension

from presence_ds.errors import ConfigError

NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "fuse", "9p", "wekafs")
FOLDER = Path("/dev/shm")
BUFFERS = "deepspeed_allreduce_buffer_*"
LOCKED_BY_EXISTENCE = hasattr(cpp_extension, "FileBaton")  # later torch leaves it to the kernel, and the file lying
YOUNG = 60.0  # seconds: a rank that is starting may be about to map what it has made, or what a peer has


def operator_folder() -> Path:
    """Where torch builds operators: TORCH_EXTENSIONS_DIR, or a folder in the user's cache.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    path = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
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

    Nothing, where a lock is no file's existence. Elsewhere a holder keeps the file open. On a network file system it
    may be one of another machine: nothing is removed there.
    """
    if not LOCKED_BY_EXISTENCE:
        return
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(mount.mountpoint)]
    if mounts and max(mounts, key=lambda mount: len(mount.mountpoint)).fstype.startswith(NETWORK):
        return
    for lock in (*path.glob("*/lock"), *path.glob("*/*/lock")):  # torch's own cache has a level more
        while _is_ours(lock) and str(lock.resolve()) not in _used():
            if local_rank == 0:
                lock.unlink(missing_ok=True)
            else:
                time.sleep(0.1)


def clear_stale_buffers(folder: Path = FOLDER, young: float = YOUNG) -> None:
    """Remove this user's buffers that no process has mapped or open.

    Removing one takes nothing from processes that have mapped it, so that ranks of another container, whose processes
    cannot be seen here, lose nothing but its name either.
    """
    old = [file for file in folder.glob(BUFFERS) if _is_ours(file, young)]
    used = _used() if old else set()
    for file in old:
        if str(file) not in used:
            file.unlink(missing_ok=True)


def _is_ours(file: Path, young: float = float("-inf")) -> bool:  # a clock may have been set back
    """Whether the file is there, this user's, and has been for ``young`` seconds; by default of whatever age."""
    with suppress(FileNotFoundError):
        state = file.stat()
        return state.st_uid == os.getuid() and time.time() - state.st_mtime >= young
    return False


def _used() -> set[str]:
    """Every file that a process has open or mapped, as far as this user may know.

    psutil says nothing of a process one of whose files this user may not look at, and goes through its page tables.
    """
    found = set()
    for link in glob("/proc/[0-9]*/fd/*"):
        with suppress(OSError):  # closed in the meantime
            found.add(os.readlink(link))
    for maps in glob("/proc/[0-9]*/maps"):
        with suppress(OSError):  # ended in the meantime, or another user's
            lines = Path(maps).read_text(encoding="utf-8", errors="replace").splitlines()
            found |= {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    return found
