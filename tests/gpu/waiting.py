"""Where the host waits for the device, by torch's own warnings, with the lines that asked."""

import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import presence_ds

PACKAGE = Path(presence_ds.__file__).parent
MESSAGE = "synchronizing CUDA operation"
NOT_ASKING = (f"{os.sep}torch{os.sep}", f"{os.sep}tests{os.sep}gpu{os.sep}", f"{os.sep}warnings.py")


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """Inside, every wait is counted by the line that asked: of this package if one did, else the innermost."""
    found: Counter[str] = Counter()

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if MESSAGE in str(message):
            found[_asking()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        with _debugged():
            yield found


@contextmanager
def _debugged() -> Iterator[None]:
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _asking() -> str:
    """File and line, below this package or with as much as tells a file of another one."""
    frames = [frame for frame in traceback.extract_stack() if not any(part in frame.filename for part in NOT_ASKING)]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if ours and not _leaves(ours[-1], frames[-1]):
        return f"presence_ds/{Path(ours[-1].filename).relative_to(PACKAGE)}:{ours[-1].lineno}: {ours[-1].line}"
    return f"{'/'.join(Path(frames[-1].filename).parts[-3:])}:{frames[-1].lineno}: {frames[-1].line}"


def _leaves(ours: traceback.FrameSummary, last: traceback.FrameSummary) -> bool:
    """Whether the line is DeepSpeed's or the model's, called from this package as it is without it."""
    return last.filename != ours.filename and any(name in last.filename for name in ("deepspeed", "transformers"))


def of_steps(step: Callable[[], Any], steps: int) -> Counter[str]:
    """Waits in ``steps`` steps after two that are not counted."""
    for _ in range(2):
        step()
    with waits() as found:
        for _ in range(steps):
            step()
    return found
