"""metrics.jsonl: the source of truth, one JSON object per logged step."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.ranks.rank_log import print_warning

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer


class MetricsFile(Callback):
    """Appends every logged step on rank 0, line by line, and syncs to disk before a checkpoint.

    Lines that cannot be written, as the disk is full, wait for the next one; of a part of them nothing stays behind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 -- closed by close()
        self._waiting = b""
        self._failed = False

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        line = json.dumps({name: json_value(value) for name, value in metrics.items()})
        self._waiting += line.encode() + b"\n"
        self._write()

    def on_checkpoint(self, trainer: Trainer) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        if self._waiting:
            self._write()
        if self._waiting:
            print_warning(f"{self._path} lacks its last {self._waiting.count(b'{')} lines, which could not be written")
        with suppress(OSError):
            self._file.close()

    def _write(self) -> None:
        end = None
        try:
            end = os.fstat(self._file.fileno()).st_size
            left = memoryview(self._waiting)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            if end is not None:
                with suppress(OSError):
                    self._file.truncate(end)  # half a line
            self._fail(error)
        else:
            self._waiting, self._failed = b"", False

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            print_warning(f"{self._path} cannot be written ({error.strerror}); training goes on, and lines wait")
        self._failed = True


def json_value(value: Any) -> Any:
    """``value``, or None for a float that JSON cannot hold (NaN, infinity)."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
