"""Strategy ``two_pass``: score every micro-batch of the optimizer step first, then train on them with known weights.

A score pass (forward and input-gradient sweep) keeps no weight gradient and no activation beyond what autograd and
activation checkpointing keep; an ordinary weighted forward and backward follows. Micro-batches wait, as token ids,
until the step's last one has been scored, so weights come from exact statistics of the whole step however many
accumulation steps it has.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from presence_ds.engine.weighted_pass import Objective, weighted_mean_loss


@dataclass(frozen=True)
class Waiting:
    """A scored micro-batch that waits for its weights.

    Attributes:
        args, batch: what the model takes, with ``labels``.
        random_states: of the host's and the accelerator's generator before its score pass; with them dropout falls
            alike in the weighted pass.
        finite: [B] bool on the host, whether loss and score are finite.
    """

    args: tuple[Any, ...]
    batch: dict[str, Any]
    random_states: tuple[Tensor, Tensor]
    finite: Tensor

    def weighted_loss(
        self, objective: Objective, forward: Callable[..., Any], weights: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Scalar with the value of the weighted mean loss and the gradient (1/B) Σ_i weights[i] g_i.

        Args:
            forward: the model's own forward.
            weights: [B] float64 on the host; 0 where a sample is not finite.

        Returns:
            It, with the gradient of the model's own terms added, and their sum without gradient, if there are any.
        """
        with at_random_states(self.random_states):
            losses, terms = objective(forward, self.args, self.batch, self.finite)
        return weighted_mean_loss(losses, weights, terms), None if terms is None else terms.detach()


def random_states() -> tuple[Tensor, Tensor]:
    """States of the host's generator and of the accelerator's (the same one where that is a CPU)."""
    return torch.get_rng_state(), get_accelerator().get_rng_state()


@contextmanager
def at_random_states(states: tuple[Tensor, Tensor]) -> Iterator[None]:
    """Inside, random numbers go on from ``states``; afterwards from where they were."""
    before = random_states()
    _set_random_states(states)
    try:
        yield
    finally:
        _set_random_states(before)


def _set_random_states(states: tuple[Tensor, Tensor]) -> None:
    get_accelerator().set_rng_state(states[1])
    torch.set_rng_state(states[0])
