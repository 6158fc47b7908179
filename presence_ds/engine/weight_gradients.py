"""The weight-gradient sweep: Σ_i u_i G_i of every parameter, delivered through autograd.

A parameter enters a custom autograd Function as its input, so its gradient arrives where autograd would have put it,
and ZeRO's own hooks reduce and partition it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from presence_ds.capture import Term
from presence_ds.engine.objective import mean_loss
from presence_ds.engine.scorer import Scored
from presence_ds.engine.zero import is_partitioned, pose_as_whole


def weight_gradient_loss(scored: Scored, weights: Tensor) -> Tensor:
    """Scalar with the value of the weighted mean loss, whose backward is the weight-gradient sweep.

    Its gradient is (1/B) Σ_i weights[i] g_i, B being the rows of the micro-batch.

    Args:
        weights: [B], or of documents, float64 on the host; samples of weight 0 take no part, whatever their gradients
            hold. Where gradients are captured of the whole micro-batch at once all weights but those of 0 are alike.
    """
    terms, losses = scored.capture.terms, scored.losses
    value = mean_loss(losses, weights.to(losses.device, losses.dtype))
    units = weights if scored.capture.units == len(losses) else weights.sum()[None]
    left_out = units == 0
    if scored.documents is not None and left_out.any():  # as those of one token are, whose gradients are 0
        left_out &= ~_are_finite(scored)
    if left_out.any():  # 0 · NaN is NaN, so a weight of 0 would not do
        kept = (~left_out).nonzero().squeeze(1)
        samples, units = kept.to(losses.device), units[kept]
        terms = {parameter: [term.select(samples) for term in uses] for parameter, uses in terms.items()}
    units = units.to(losses.device, losses.dtype, non_blocking=True)
    units = units / (scored.rows * scored.scale)
    deliveries = []
    for parameter, uses in terms.items():  # in the order of the forward pass; their backward runs in the opposite one
        if not uses:
            continue  # used, but the loss does not depend on it
        if is_partitioned(parameter):
            pose_as_whole(parameter)
        deliveries.append(_Deliver.apply(parameter, uses, units))
    return value + torch.stack(deliveries).sum()


def _are_finite(scored: Scored) -> Tensor:
    """Which losses and gradients are finite, [P] bool on the host."""
    assert scored.scores is not None
    return (scored.losses.isfinite() & scored.scores.isfinite()).cpu()


class _Deliver(Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, terms: list[Term], weights: Tensor) -> Tensor:
        ctx.terms, ctx.weights, ctx.dtype = terms, weights, parameter.dtype
        return weights.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        weights = ctx.weights * grad_outputs[0]
        total = ctx.terms[0].weighted_sum(weights, ctx.dtype)
        for term in ctx.terms[1:]:
            total += term.weighted_sum(weights, ctx.dtype)
        ctx.terms = None  # frees the layer's activations and output gradients
        return total, None, None
