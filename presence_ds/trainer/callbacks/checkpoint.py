"""Saves a checkpoint every N steps and at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from presence_ds.errors import CheckpointError
from presence_ds.trainer.callbacks.anomalies import Anomalies
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.checkpoint import CheckpointConfig, Saver

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer


class Checkpoints(Callback):
    """A checkpoint that cannot be written is said aloud and tried again when the next one is due.

    One that is due in a step whose loss is a spike is written after the spike, so that none of a diverging run pushes
    out the good ones. A run does not end well without its last one.
    """

    def __init__(
        self, config: CheckpointConfig, folder: Path, anomalies: Anomalies, warn: Callable[[str], None]
    ) -> None:
        """``warn`` takes one line about a checkpoint that could not be written."""
        self._config = config
        self._saver = Saver(config, folder)
        self._anomalies = anomalies
        self._warn = warn
        self._due = False
        self._saved_step: int | None = None
        self._problem: str | None = None

    def on_step_end(self, trainer: Trainer) -> None:
        every = self._config.every_steps
        at_end = trainer.stopping or (trainer.is_last_step and self._config.at_end)
        self._due |= every is not None and trainer.step % every == 0
        if at_end or (self._due and not self._anomalies.spiking):
            self._due = False
            self.save(trainer, required=trainer.stopping)
        if trainer.is_last_step and self._problem is not None:
            raise CheckpointError(self._problem)

    def save(self, trainer: Trainer, *, required: bool) -> None:
        """Save now, on every rank; nothing to do if this step is saved already.

        Raises:
            CheckpointError: it is ``required`` and could not be written.
        """
        if self._saved_step == trainer.step:
            return
        with trainer.watch.long():
            trainer.notify("on_checkpoint")
            reason = self._saver.save(trainer)
        if reason is None:
            self._saved_step, self._problem = trainer.step, None
            return
        self._problem = f"no checkpoint of step {trainer.step} could be written: {reason}"
        if required:
            raise CheckpointError(self._problem)
        self._warn(f"{self._problem}; training goes on, and the next checkpoint is tried when it is due")
