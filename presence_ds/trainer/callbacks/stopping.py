"""Stopping on request: agreed by all ranks in each step, so that all of them stop after the same one.

They tell each other along with the scores of the step, before its last forward. A request that comes later is one of
the next step.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from presence_ds.errors import Stopped
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.ranks.stop_config import StopConfig
from presence_ds.trainer.ranks.stop_signals import StopSignals, describe, reason
from presence_ds.trainer.run_directory.layout import RunDirectory, write_stopped

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer

STOP_FILE = 1000  # beside the numbers of signals
LOOK_EVERY = 1.0  # seconds between two looks for the stop file, which may lie on a busy file system


class Stopping(Callback):
    """Asks every rank in each step whether to stop; a checkpoint follows, and stopped.json says why."""

    def __init__(self, config: StopConfig, directory: RunDirectory, signals: StopSignals) -> None:
        self._directory = directory
        self._signals = signals
        self._file: Path | None = None if config.stop_file is None else directory.path / config.stop_file
        self._looked = -LOOK_EVERY

    def on_train_start(self, trainer: Trainer) -> None:
        cause = trainer.ranks.largest(self._cause(trainer))()
        if cause:
            raise Stopped(f"stopped by {self._describe(cause)} before a step was taken", _reason(cause))
        if trainer.ranks.is_main:
            with suppress(OSError):  # of a file system that has become read-only
                self._directory.stopped.unlink(missing_ok=True)

    def on_last_forward(self, trainer: Trainer) -> None:
        trainer.messages.tell("stop", self._cause(trainer))

    def on_step_end(self, trainer: Trainer) -> None:
        cause = trainer.messages.largest("stop")
        if cause and not trainer.is_last_step:
            trainer.stop = Stopped(
                f"stopped by {self._describe(cause)} after step {trainer.step} of {trainer.total_steps}, with a "
                f"checkpoint; go on with: presence train {self._directory.recipe}",
                _reason(cause),
            )

    def on_stop(self, trainer: Trainer) -> None:
        if trainer.ranks.is_main:
            assert trainer.stop is not None
            write_stopped(self._directory, trainer.stop.reason, str(trainer.stop), trainer.stop.status, trainer.step)

    def _cause(self, trainer: Trainer) -> int:
        """Why this rank wants to stop, as a number that the ranks compare; 0 if it does not."""
        if self._signals.received is not None:
            return self._signals.received
        now = time.monotonic()
        if trainer.ranks.is_main and self._file is not None and now - self._looked >= LOOK_EVERY:
            self._looked = now
            if self._file.exists():
                return STOP_FILE
        return 0

    def _describe(self, cause: int) -> str:
        return f"{self._file} (delete it to go on)" if cause == STOP_FILE else describe(cause)


def _reason(cause: int) -> str:
    return "stop_file" if cause == STOP_FILE else reason(cause)
