"""The weight-gradient sweep: Σ_i u_i G_i of every parameter, delivered through autograd.

Parameters enter a custom autograd Function as its inputs, so their gradients arrive where autograd would have put them,
and ZeRO's own hooks reduce and partition them. All of it is made ready before the weights are known, while a device
still computes the input gradients: between the sweeps it waits for the weights alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from presence_ds.capture import OuterTerm, Term, full_shape, wide
from presence_ds.engine.objective import mean_loss
from presence_ds.engine.scorer import Scored
from presence_ds.engine.zero import is_partitioned, pose_as_whole
from presence_ds.transfers import to_device

MOST_ELEMENTS = 1 << 24  # of the gradients that are delivered at once, if they are of several parameters


def weight_gradient_sweep(scored: Scored) -> Callable[[Tensor], Tensor]:
    """Make ready the sweep of all parameters whose terms ``scored`` has kept.

    Returns:
        a function to be called once, of the weights: [B], or of documents, float64 on the host; samples of weight 0
        take no part, whatever their gradients hold. Where gradients are captured of the whole micro-batch at once all
        weights but those of 0 are alike. It returns a scalar with the value of the weighted mean loss, whose backward
        is the sweep and has the gradient (1/B) Σ_i weights[i] g_i, B being the rows of the micro-batch.
    """
    uses = {parameter: terms for parameter, terms in scored.capture.terms.items() if terms}  # of the others no loss
    sweep = _Sweep(scored.capture.terms, len(uses))
    for parameter in uses:
        if is_partitioned(parameter):
            pose_as_whole(parameter)
    # in the order of the forward pass: their backward runs in the opposite one
    deliveries = torch.stack([_Deliver.apply(sweep, *parameters) for parameters in _together(uses)]).sum()
    return lambda weights: deliveries + sweep.weigh(scored, weights)


class _Sweep:
    """What the deliveries of a micro-batch have in common, which lives as long as the loss does: terms and weights."""

    def __init__(self, terms: dict[Tensor, list[Term]], uses: int) -> None:
        self._terms = terms
        self._left = uses  # parameters that are not delivered yet
        self._kept: Tensor | None = None  # indices of the samples that take part, if not all do
        self.units: Tensor | None = None  # what their gradients are multiplied by
        self._weighted: tuple[Sequence[Tensor], Tensor] | None = None  # columns of the term before, and who shares them

    def weigh(self, scored: Scored, weights: Tensor) -> Tensor:
        """Take in what `weight_gradient_sweep` says, and give the weighted mean loss."""
        losses = scored.losses
        units = weights if scored.capture.units == len(losses) else weights.sum()[None]
        left_out = units == 0
        if scored.documents is not None and left_out.any():  # as those of one token are, whose gradients are 0
            left_out &= ~_are_finite(scored)
        if left_out.any():  # 0 · NaN is NaN, so a weight of 0 would not do
            kept = (~left_out).nonzero().squeeze(1)
            self._kept, units = to_device(kept, losses.device), units[kept]
        self.units = to_device(units / (scored.rows * scored.scale), losses.device, losses.dtype)
        return mean_loss(losses, to_device(weights, losses.device, losses.dtype))

    def gradient(self, parameter: Tensor, units: Tensor) -> Tensor:
        """Σ_i units[i] G_i, as ``parameter``; its terms, a layer's activations and output gradients, are given up."""
        terms = self._terms.pop(parameter)
        if self._kept is not None:
            terms = [term.select(self._kept) for term in terms]
        total = self._weighted_sum(terms[0], units, parameter.dtype)
        for term in terms[1:]:
            total += self._weighted_sum(term, units, parameter.dtype)
        self._left -= 1
        if self._left == 0:
            self._weighted = None
        return total

    def _weighted_sum(self, term: Term, units: Tensor, dtype: torch.dtype) -> Tensor:
        if not isinstance(term, OuterTerm) or not term.shares_weighted_cols:
            return term.weighted_sum(units, dtype)
        if self._weighted is None or self._weighted[0] is not term.sharers:
            self._weighted = term.sharers, term.weighted_cols(units)
        return term.sum_with(self._weighted[1], dtype)


def _together(uses: dict[Tensor, list[Term]]) -> Iterator[list[Tensor]]:
    """Parameters that are delivered at once: about a block of layers, no more than `MOST_ELEMENTS`."""
    parameters: list[Tensor] = []
    size = 0
    for parameter in uses:
        size += full_shape(parameter).numel()
        if parameters and size > MOST_ELEMENTS:
            yield parameters
            parameters, size = [], full_shape(parameter).numel()
        parameters.append(parameter)
    if parameters:
        yield parameters


def _are_finite(scored: Scored) -> Tensor:
    """Which losses and gradients are finite, [P] bool on the host."""
    assert scored.scores is not None
    return (scored.losses.isfinite() & scored.scores.isfinite()).cpu()


class _Deliver(Function):
    @staticmethod
    def forward(ctx: Any, sweep: _Sweep, *parameters: Tensor) -> Tensor:
        ctx.sweep, ctx.parameters = sweep, parameters
        return parameters[0].new_zeros((), dtype=wide(parameters[0].dtype))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        units = ctx.sweep.units * grad_outputs[0]
        gradients = [ctx.sweep.gradient(parameter, units) for parameter in reversed(ctx.parameters)]
        return None, *reversed(gradients)
