"""An ordinary forward whose loss is weighted sample by sample; its backward is an ordinary backward."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.engine.batch import logits_of, replace_samples, take_labels
from presence_ds.engine.own_terms import OwnTerms
from presence_ds.influence import SampleLoss


@dataclass(frozen=True)
class Objective:
    """What ``model`` is trained on: the losses of its samples, and terms of its own that belong to none of them."""

    model: nn.Module
    loss: SampleLoss
    own_terms: OwnTerms

    def __call__(
        self,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        batch: dict[str, Any],
        finite: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Per-sample losses of a micro-batch, [B], and the sum of the model's own terms, if any; differentiable.

        Args:
            forward, args, batch: the model's own forward and what it takes, with ``labels``.
            finite: [B] bool on the host; other samples are replaced, for a weight of 0.
        """
        if finite is not None and not finite.all():
            args, batch = replace_samples(args, batch, finite)
        inputs, labels = take_labels(self.model, batch)
        output, terms = self.own_terms.forward(forward, args, inputs, labels)
        return self.loss(logits_of(output), labels), terms


def weighted_mean_loss(losses: Tensor, weights: Tensor, terms: Tensor | None = None) -> Tensor:
    """Scalar with the value of the weighted mean loss and the gradient (1/B) Σ_i weights[i] ∇ losses[i].

    Args:
        losses: [B], differentiable.
        weights: [B] float64 on the host; 0 for samples that were replaced.
        terms: 0-dimensional; its gradient is added, unweighted, and its value is not.
    """
    weights = weights.to(losses.device, losses.dtype)
    surrogate = (weights * losses).sum() / len(losses)
    value = mean_loss(losses, weights)
    if terms is not None:
        surrogate = surrogate + terms
    return surrogate + (value - surrogate.detach())


def mean_loss(losses: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i ℓ_i / Σ_i w_i without gradient, over the samples whose weight is not 0; 0 if there are none."""
    losses = torch.where(weights == 0, 0.0, losses.detach())
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
