"""How well one list of scores stands for another: rank correlation, relative error, separation of two kinds."""

import torch
from torch import Tensor


def ranks(scores: Tensor) -> Tensor:
    """Rank of each of [N] scores, float64; equal ones share their mean rank."""
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]


def pearson(a: Tensor, b: Tensor) -> float:
    """Correlation of two lists [N]."""
    return torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].item()


def spearman(a: Tensor, b: Tensor) -> float:
    """Correlation of the ranks of two lists [N]."""
    return pearson(ranks(a), ranks(b))


def relative_error(estimate: Tensor, exact: Tensor) -> Tensor:
    """|estimate / exact − 1|."""
    return (estimate / exact - 1).abs()


def auc(negative: Tensor, positive: Tensor) -> float:
    """Probability that a score of ``positive`` is above one of ``negative``, ties counting half."""
    above = ranks(torch.cat([negative, positive]))[len(negative) :].sum().item()
    count = len(positive)
    return (above - count * (count + 1) / 2) / (count * len(negative))
