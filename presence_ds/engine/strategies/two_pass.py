"""Strategy ``two_pass``: score every micro-batch of the optimizer step first, then train on them with known weights.

A score pass (forward and input-gradient sweep; with signal loss a forward alone) keeps no weight gradient and no
activation beyond what autograd and activation checkpointing keep; an ordinary weighted forward and backward follows.
Micro-batches wait, as token ids, until the step's last one has been scored, so weights come from exact statistics of
the whole step however many accumulation steps it has.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from presence_ds.engine.objective import mean_loss, weighted_mean_loss
from presence_ds.engine.random_states import RandomStates, at_random_states, random_states
from presence_ds.engine.scorer import Found
from presence_ds.engine.strategies.strategy import Forward, Strategy
from presence_ds.errors import ConfigError
from presence_ds.transfers import to_device

if TYPE_CHECKING:
    from presence_ds.engine.engine import PresenceEngine


class Waiting(NamedTuple):
    """A scored micro-batch that waits for its weights.

    Attributes:
        args, batch: what the model takes, with ``labels``.
        random_states: before its score pass; with them dropout falls alike in the weighted pass.
        finite: [b] bool, whether everything known of a sample is finite.
    """

    args: tuple[Any, ...]
    batch: dict[str, Any]
    random_states: RandomStates
    finite: Tensor


class TwoPass(Strategy):
    """Scores in the engine's forward, and trains on the whole step in the backward of its last micro-step."""

    def forget_step(self) -> None:
        self._waiting: list[Waiting] = []
        self._loss: Tensor | None = None  # of the last forward

    def forward(
        self, engine: "PresenceEngine", args: tuple[Any, ...], batch: dict[str, Any], sources: Tensor | None
    ) -> Tensor:
        """The mean loss of the micro-batch, unweighted but for the step's last one; nothing to differentiate."""
        presence, at = engine.presence, engine.micro_step()
        batch, states = self.objective.complete(batch), random_states()
        # By the module itself, a forward and a backward after it, as in the weighted pass: ZeRO-3 prefetches
        # parameters only where modules come in the order of the pass before.
        found = self.score(engine.module, args, batch, at.scale)
        finite = presence.collect(at, sources, found)
        result = presence.finish(at) if at.last else None
        self._waiting.append(Waiting(args, batch, states, finite))
        weights = finite & (found.targets > 0)
        if result is not None:
            weights = to_device(result.terms[-len(weights) :], weights.device) * weights
        self._loss = mean_loss(found.losses, weights.to(found.losses.dtype))
        return self._loss

    def backward(self, engine: "PresenceEngine", loss: Tensor, backward: Callable[[Tensor], Any]) -> Any:
        """The weighted passes of all micro-batches after the step's last one.

        Raises:
            ConfigError: ``loss`` is not the one that `forward` returned.
        """
        if loss is not self._loss:
            raise ConfigError(
                "engine.backward was given another loss than the engine's forward returned: strategy two_pass runs the "
                "model again and cannot follow what was added; use strategy one_pass"
            )
        self._loss = None
        presence = engine.presence
        if not engine.is_gradient_accumulation_boundary() or presence.is_empty:
            return loss
        of_each = presence.final.split([len(waiting.finite) for waiting in self._waiting])
        for index, (waiting, weights) in enumerate(zip(self._waiting, of_each, strict=True)):
            with engine.boundary(index == len(self._waiting) - 1):
                weighted = engine.forward_as(partial(self._weighted_loss, waiting, weights, presence.own_terms))
                backward(presence.overflow_or(weighted))
        presence.report_own_terms()
        return loss

    def run_alone(self, batch: dict[str, Any]) -> None:
        """Score pass and weighted pass."""
        batch = self.objective.options | batch
        self.score(self._model.forward, (), batch, 1.0)
        losses, terms = self.objective(self._model.forward, (), batch)
        weights = torch.ones(len(losses), dtype=torch.float64)
        weighted_mean_loss(losses, weights, len(batch["labels"]), terms).backward()

    def score(self, forward: Forward, args: tuple[Any, ...], batch: dict[str, Any], scale: float) -> Found:
        """The score pass; nothing of it stays but this.

        Args:
            forward, args, batch, scale: as for `Scorer.score`; ``batch`` is what the objective has completed.
        """
        if self.scorer is not None:
            return self.scorer.score(forward, args, batch, scale)
        with torch.no_grad():
            losses, _ = self.objective(self._compiled or forward, args, batch)
        return self.objective.found(losses, batch)

    def _weighted_loss(self, waiting: Waiting, weights: Tensor, own_terms: list[Tensor], forward: Forward) -> Tensor:
        """Scalar with the value of the weighted mean loss and the gradient (1/b) Σ_i weights[i] g_i.

        The gradient of the model's own terms is added, and their sum put into ``own_terms``, if there are any.
        """
        args, batch, states, finite = waiting
        with at_random_states(states):
            losses, terms = self.objective(self._compiled or forward, args, batch, finite.cpu())
        if terms is not None:
            own_terms.append(terms.detach())
        return weighted_mean_loss(losses, weights, len(batch["labels"]), terms)
