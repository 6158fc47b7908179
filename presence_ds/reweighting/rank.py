"""Normaliser ``rank``."""

import torch
from torch import Tensor

from presence_ds.reweighting.moments import Moments


class Rank:
    """Normal quantiles of the ranks: z_i = Φ⁻¹((r_i − ½) / n), r_i = 1..n from the lowest; ties share their mean rank.

    Nothing but the order of the scores is kept, so no outlier matters and any increasing function of the scores gives
    the same weights. Quantiles of the normal distribution rather than standardised ranks, because τ and thresholds then
    mean what they mean for the z-score of normal scores, and the effective sample size of the softmax is known in
    advance: n·exp(−τ²).
    """

    def fit(self, values: Tensor) -> None:
        """Nothing: ranks are of the step alone."""

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        """z-scores, float64 [n], of all finite samples of a step (``values`` [n])."""
        _, group, sizes = values.unique(return_inverse=True, return_counts=True)
        last = sizes.cumsum(0).double()
        mean_rank = last - (sizes - 1) / 2
        return torch.special.ndtri((mean_rank[group] - 0.5) / len(values))

    def running(self) -> None:
        """Nothing: `check_running` refuses ranks among the samples of other steps."""
