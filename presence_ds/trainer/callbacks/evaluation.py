"""Loss on the validation split every N steps and at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from presence_ds.errors import ConfigError
from presence_ds.trainer.callbacks.callback import Callback

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Batch, Metrics, Trainer


@dataclass
class EvaluationConfig:
    """Loss on the validation split, with the plain model.

    Args:
        every_steps: Optimizer steps between two evaluations; there is always one at the end. null: only that one.
        max_batches: Most micro-batches per rank in one evaluation, drawn from all sources, the same ones each time.
            null: all of the split.
    """

    every_steps: int | None = 500
    max_batches: int | None = None

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        for name in ("every_steps", "max_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{field}.{name} is {value}: it must be at least 1, or null")


class Evaluation(Callback):
    """Adds ``validation/loss`` (nats per token) to the metrics of the steps it runs at."""

    def __init__(self, config: EvaluationConfig, loader: Iterable[Batch]) -> None:
        self._config = config
        self._loader = loader
        self.last_loss: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"last_loss": self.last_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last_loss = state["last_loss"]

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        every = self._config.every_steps
        if trainer.is_last_step or (every is not None and trainer.step % every == 0):
            self.last_loss = self._evaluate(trainer)
            metrics["validation/loss"] = self.last_loss

    @torch.no_grad()
    def _evaluate(self, trainer: Trainer) -> float:
        engine = trainer.engine
        engine.eval()
        loss_sum, tokens = 0.0, 0
        for batch in islice(self._loader, self._config.max_batches):
            inputs = trainer.model_inputs(batch)
            loss = engine(**inputs).loss
            count = int((inputs["labels"][:, 1:] != -100).sum())
            loss_sum += float(loss) * count
            tokens += count
        engine.train()
        loss_total, token_total = trainer.ranks.sum([loss_sum, float(tokens)], engine.device)
        return loss_total / token_total
