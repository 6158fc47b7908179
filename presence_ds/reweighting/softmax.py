"""Unnormalised softmax weights (equation 8)."""

import torch
from torch import Tensor

from presence_ds.reweighting.moments import Moments

MAX_EXPONENT = 20.0


def softmax_terms(scores: Tensor, finite: Tensor, moments: Moments | None, tau: float) -> Tensor:
    """u_i = exp(τ s_i) with s_i the normalised score; the weights are w_i = u_i / Σ_j u_j over the optimizer step.

    The exponent is limited to ±20: only scores normalised with the moments of *earlier* steps can pass it, and there a
    factor of e²⁰ already leaves one sample nearly all the weight, while an unlimited one would overflow the accumulated
    gradient or its norm.

    Args:
        scores: raw scores, any shape.
        finite: same shape, bool; where False the weight is 0 and the score is not looked at.
        moments: mean and variance for the z-score; None where no score is finite.
        tau: signed temperature.

    Returns:
        float64, shape of ``scores``.
    """
    if moments is None:
        return torch.zeros_like(scores, dtype=torch.float64)
    exponent = tau * moments.normalize(torch.where(finite, scores, moments.mean))
    return torch.where(finite, exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp(), 0.0)
