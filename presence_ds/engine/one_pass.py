"""Strategy ``one_pass``: forward, input-gradient sweep, scores, weights, weight-gradient sweep.

An ordinary backward computes input gradients and weight gradients in one sweep. Here the two are taken apart: the first
sweep leaves every layer's input and output gradient, from which each sample's self-influence follows; with the weights
known, the second sweep forms Σ_i w_i g_i. The arithmetic is that of one ordinary step plus the scoring.
"""

import torch
from torch import Tensor

from presence_ds.engine.scorer import Scored
from presence_ds.engine.weight_gradients import drop_samples, surrogate
from presence_ds.engine.weighted_pass import mean_loss


def weight_gradient_loss(scored: Scored, weights: Tensor) -> Tensor:
    """Scalar with the value of the weighted mean loss, whose backward is the weight-gradient sweep.

    Its gradient is (1/B) Σ_i weights[i] g_i.

    Args:
        weights: [B] float64 on the host; samples of weight 0 take no part, whatever their gradients hold. Where
            gradients are captured of the whole micro-batch at once all weights but those of 0 are alike.
    """
    terms, losses = scored.capture.terms, scored.losses
    value = mean_loss(losses, weights.to(losses.device, losses.dtype))
    units = weights if scored.capture.batch_size == len(losses) else weights.sum()[None]
    if not units.all():
        kept = units.nonzero().squeeze(1)
        terms, units = drop_samples(terms, kept.to(losses.device)), units[kept]
    units = units.to(losses.device, torch.promote_types(losses.dtype, torch.float32), non_blocking=True)
    return surrogate(terms, units / (len(losses) * scored.scale), value)
