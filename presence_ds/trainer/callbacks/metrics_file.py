"""metrics.jsonl: the source of truth, one JSON object per logged step."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.trainer.callbacks.callback import Callback

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer


class MetricsFile(Callback):
    """Appends every logged step on rank 0, flushed line by line, and synced to disk before a checkpoint."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 -- closed by close()

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        self._file.write(json.dumps({name: json_value(value) for name, value in metrics.items()}) + "\n")
        self._file.flush()

    def on_checkpoint(self, trainer: Trainer) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def json_value(value: Any) -> Any:
    """``value``, or None for a float that JSON cannot hold (NaN, infinity)."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
