"""Signal alignment: shows the engine micro-batches of the trusted sources, so that its reference follows the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from presence_ds.data import BatchStream
from presence_ds.errors import ConfigError
from presence_ds.trainer.callbacks.callback import Callback

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer


@dataclass
class ReferenceConfig:
    """The trusted stream that signal alignment compares samples with.

    Args:
        sources: Names of training sources that are trusted. Their samples are trained on too, like all others.
        every_steps: Optimizer steps between two reference micro-batches on every rank. Each costs about two thirds of
            a micro-step; presence.reference_decay averages over them.
    """

    sources: list[str] | None = None
    every_steps: int = 4

    def validate(self, field: str, signal: str, known_sources: list[str]) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if self.every_steps < 1:
            raise ConfigError(f"{field}.every_steps is {self.every_steps}: it must be at least 1")
        if (signal == "alignment") != bool(self.sources):
            state = "not set" if not self.sources else "set"
            raise ConfigError(
                f"{field}.sources is {state}, and presence.signal is {signal}: name trusted sources for signal "
                f"alignment, and only for it"
            )
        for name in self.sources or []:
            if name not in known_sources:
                raise ConfigError(f'{field}.sources: "{name}" is no training source: it must be one of {known_sources}')


class ReferenceStream(Callback):
    """Feeds the reference before the first step and every few steps after."""

    def __init__(self, every_steps: int, batches: BatchStream) -> None:
        self._every_steps = every_steps
        self._batches = batches
        self._observed = False

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self._batches.state_dict(), "observed": self._observed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches.load_state_dict(state["batches"])
        self._observed = state.get("observed", True)

    def on_train_start(self, trainer: Trainer) -> None:
        if not self._observed:  # a resumed run has it in its checkpoint, unless the signal was another one
            self._observe(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step % self._every_steps == 0 and not trainer.is_last_step:
            self._observe(trainer)

    def _observe(self, trainer: Trainer) -> None:
        batch = next(self._batches)
        trainer.engine.train()
        trainer.engine.observe_reference(**trainer.model_inputs(batch))
        self._observed = True
