"""An ordinary forward whose loss is weighted sample by sample; its backward is an ordinary backward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.engine.batch import logits_of, replace_samples, take_labels
from presence_ds.influence import SampleLoss


def sample_losses(
    model: nn.Module,
    loss: SampleLoss,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    batch: dict[str, Any],
    finite: Tensor | None = None,
) -> Tensor:
    """Per-sample losses of a micro-batch, [B], differentiable.

    Args:
        forward, args, batch: the model's own forward and what it takes, with ``labels``.
        finite: [B] bool on the host; other samples are replaced, for a weight of 0.
    """
    if finite is not None and not finite.all():
        args, batch = replace_samples(args, batch, finite)
    inputs, labels = take_labels(model, batch)
    return loss(logits_of(forward(*args, **inputs)), labels)


def weighted_mean_loss(losses: Tensor, weights: Tensor) -> Tensor:
    """Scalar with the value of the weighted mean loss and the gradient (1/B) Σ_i weights[i] ∇ losses[i].

    Args:
        losses: [B], differentiable.
        weights: [B] float64 on the host; 0 for samples that were replaced.
    """
    weights = weights.to(losses.device, losses.dtype)
    surrogate = (weights * losses).sum() / len(losses)
    value = mean_loss(losses, weights)
    return surrogate + (value - surrogate.detach())


def mean_loss(losses: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i ℓ_i / Σ_i w_i without gradient, over the samples whose weight is not 0; 0 if there are none."""
    losses = torch.where(weights == 0, 0.0, losses.detach())
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)
