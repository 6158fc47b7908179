"""What the inner products of a step's gradients say: ridge leverage and near-duplicates.

Both take the Gram matrix K = P Pᵀ ([n, n] float64) of the joint projections P ([n, m]) of the step's finite samples.
"""

import torch
from torch import Tensor

ROUNDING = 1e-6  # of a cosine of float32 vectors


def gram(features: Tensor) -> Tensor:
    """K_ij = ⟨P_i, P_j⟩ in float64."""
    wide = features.double()
    return wide @ wide.T


def leverage(products: Tensor, damping: float) -> Tensor:
    """Self-influence under curvature, h_i = g_iᵀ (F + λI)⁻¹ g_i with F = (1/n) Σ_j g_j g_jᵀ: [n] float64.

    In the projected space that is the ridge leverage score h_i = n · [K (K + nλI)⁻¹]_ii. F's eigenvalues, where they
    are not 0, are those of K / n, and λ = damping · mean(diag K) / n puts damping in units of their mean over the n
    samples. So h is a pure number from 0 to n that a factor in all gradients leaves as it is. It is high for a gradient
    that is large *and* unlike the others': with a large damping h tends to self-influence (over λ), with a small one
    length matters less and less.

    Args:
        products: [n, n] float64, K.
        damping: the ridge, dimensionless, `presence_ds.reweighting.config.SMALLEST_DAMPING` or more.
    """
    count = len(products)
    scale = products.diagonal().mean()
    if scale == 0:
        return torch.zeros(count, dtype=torch.float64)
    relative = products / scale
    ridged = relative + damping * torch.eye(count, dtype=torch.float64)
    return count * torch.cholesky_solve(relative, torch.linalg.cholesky(ridged)).diagonal()


def near_duplicate_share(products: Tensor, cosine: float) -> float:
    """Share of samples whose gradient has at least ``cosine`` with another one's; a gradient of 0 has none."""
    lengths = products.diagonal().sqrt()
    cosines = products / lengths.outer(lengths)  # NaN for a gradient of 0, which compares as False
    return (cosines >= cosine - ROUNDING).fill_diagonal_(False).any(1).double().mean().item()
