"""Shared memory that killed ranks have left in /dev/shm.

DeepSpeed gives every CPU rank a buffer of 69 MB there, unlinked only when the process ends by itself. It is memory, and
what kills have left of it stays until the machine is started again.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
BUFFERS = "deepspeed_allreduce_buffer_*"
YOUNG = 60.0  # seconds: a rank that is starting may be about to map what it has made, or what a peer has


def clear_stale_buffers(folder: Path = FOLDER, young: float = YOUNG) -> None:
    """Remove this user's buffers that no process has mapped or open.

    Removing one takes nothing from processes that have mapped it, so that ranks of another container, whose processes
    cannot be seen here, lose nothing but its name either.
    """
    old = [file for file in folder.glob(BUFFERS) if _is_ours_and_old(file, young)]
    if not old:
        return
    used = _mapped(folder)
    for file in old:
        if str(file) not in used:
            file.unlink(missing_ok=True)


def _is_ours_and_old(file: Path, young: float) -> bool:
    with suppress(FileNotFoundError):
        state = file.stat()
        return state.st_uid == os.getuid() and time.time() - state.st_mtime > young
    return False


def _mapped(folder: Path) -> set[str]:
    """Every file in ``folder`` that a process has mapped, as far as this user may know."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # ended in the meantime, or another user's
            lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
            found |= {line.split(maxsplit=5)[5] for line in lines if f" {folder}/" in line}
    return found
