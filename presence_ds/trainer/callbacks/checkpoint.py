"""Saves a checkpoint every N steps and at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.errors import CheckpointError
from presence_ds.trainer.callbacks.anomalies import Anomalies
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.checkpoint.config import CheckpointConfig
from presence_ds.trainer.checkpoint.saving import Saver

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer


class Checkpoints(Callback):
    """A checkpoint that cannot be written is said aloud and tried again when the next one is due.

    One that is due in a step whose loss is a spike is written after the spike, so that none of a diverging run pushes
    out the good ones. A run does not end well without its last one.
    """

    def __init__(self, config: CheckpointConfig, folder: Path, recipe: dict[str, Any], anomalies: Anomalies) -> None:
        """``recipe`` is kept in every checkpoint."""
        self._config = config
        self._saver = Saver(config, folder, recipe)
        self._anomalies = anomalies
        self._asked = False  # whether the one that is being written is on the disk, on every rank
        self._due = False
        self._problem: str | None = None

    def on_last_forward(self, trainer: Trainer) -> None:
        self._asked = self._saver.unfinished_step is not None
        if self._asked:
            trainer.messages.tell("ranks still saving", int(self._saver.busy))

    def on_step_end(self, trainer: Trainer) -> None:
        if self._asked and not trainer.messages.largest("ranks still saving"):
            self._complete(trainer)
        every, stopping = self._config.every_steps, trainer.stop is not None
        at_end = stopping or (trainer.is_last_step and self._config.at_end)
        self._due |= every is not None and trainer.step % every == 0
        if at_end or (self._due and not self._anomalies.spiking):
            self._due = False
            self._anomalies.before_checkpoint(trainer)
            self._complete(trainer)
            with trainer.watch.long():
                trainer.notify("on_checkpoint")
                reason = self._saver.begin(trainer)
            if reason is not None:
                self._failed(trainer, trainer.step, reason, required=stopping)
        if not self._config.asynchronous or stopping or trainer.is_last_step:
            self._complete(trainer, required=stopping)
        if trainer.is_last_step and self._problem is not None:
            raise CheckpointError(self._problem)

    def on_stop(self, trainer: Trainer) -> None:
        self._complete(trainer)

    def close(self) -> None:
        self._saver.abandon()

    def _complete(self, trainer: Trainer, *, required: bool = False) -> None:
        """Wait for the checkpoint that is being written, if there is one, on every rank."""
        step = self._saver.unfinished_step
        if step is None:
            return
        with trainer.watch.long():
            reason = self._saver.complete(trainer.ranks)
        if reason is None:
            self._problem = None
        else:
            self._failed(trainer, step, reason, required=required)

    def _failed(self, trainer: Trainer, step: int, reason: str, *, required: bool) -> None:
        """Raises `CheckpointError` if the checkpoint was ``required``."""
        self._problem = f"no checkpoint of step {step} could be written: {reason}"
        if required:
            raise CheckpointError(self._problem)
        trainer.ranks.warn(f"{self._problem}; training goes on, and the next checkpoint is tried when it is due")
