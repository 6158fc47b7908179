"""Strategy ``one_pass``: forward, input-gradient sweep, scores, weights, weight-gradient sweep.

An ordinary backward computes input gradients and weight gradients in one sweep. Here the two are taken apart: the first
sweep leaves every layer's input and output gradient, from which each sample's self-influence follows; with the weights
known, the second sweep forms Σ_i w_i g_i. The arithmetic is that of one ordinary step plus the scoring.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from presence_ds.engine.scorer import Scorer
from presence_ds.engine.strategies.strategy import Forward, Strategy
from presence_ds.engine.weight_gradients import weight_gradient_sweep
from presence_ds.engine.zero import restore_partition
from presence_ds.errors import PresenceError

if TYPE_CHECKING:
    from presence_ds.engine.engine import PresenceEngine


class OnePass(Strategy):
    """Everything inside DeepSpeed's forward; the loss that it returns has the second sweep for its backward."""

    scorer: Scorer

    def forward(
        self, engine: "PresenceEngine", args: tuple[Any, ...], batch: dict[str, Any], sources: Tensor | None
    ) -> Tensor:
        """The weighted mean loss of the micro-batch."""
        presence, at = engine.presence, engine.micro_step()

        def micro_step(forward: Forward, *args: Any, **batch: Any) -> Tensor:
            scored = self.scorer.score(forward, args, self.objective.complete(batch), at.scale)
            weighted_loss = weight_gradient_sweep(scored)
            try:
                presence.collect(at, sources, scored)
                weights = presence.weigh(at)
            except PresenceError:  # there will be no backward
                for parameter in scored.capture.terms:
                    restore_partition(parameter)
                raise
            return presence.overflow_or(weighted_loss(weights))

        return engine.forward_as(micro_step, *args, **batch)

    def run_alone(self, batch: dict[str, Any]) -> None:
        """Forward and both sweeps."""
        scored = self.scorer.score(self._model.forward, (), self.objective.options | batch)
        weight_gradient_sweep(scored)(torch.ones(len(scored.losses), dtype=torch.float64)).backward()
