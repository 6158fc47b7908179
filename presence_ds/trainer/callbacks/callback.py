"""What a callback may do, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Batch, Metrics, Trainer


class Callback:
    """One optional behaviour of the trainer. Every rank calls every hook, in the order of the trainer's list."""

    def state_dict(self) -> dict[str, Any]:
        """What has to survive a resume: plain Python values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first step, after a checkpoint has been loaded."""

    def on_last_forward(self, trainer: Trainer) -> None:
        """Before the last forward of an optimizer step: what is told here (`Trainer.messages`) is known after it."""

    def on_micro_step(self, trainer: Trainer, batch: Batch) -> None:
        """After forward, backward and step of a micro-batch."""

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        """After every optimizer step; may add to ``metrics``."""

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        """After the optimizer steps whose metrics are written down."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        """Before a checkpoint is written: what is open on disk must be complete up to this step."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After every optimizer step, when its metrics are written."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last step of a run that was not cut short."""

    def on_stop(self, trainer: Trainer) -> None:
        """Instead of `on_train_end`, when the run ends early; ``trainer.stop`` says why."""

    def close(self) -> None:
        """In any case at the end, after an error too."""
