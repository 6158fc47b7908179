"""What the inner products of a step's gradients say: ridge leverage and near-duplicates.

Both are of the Gram matrix K = P Pᵀ of the joint projections P ([N, m]) of the step's N samples that count. It need not
exist: each rank has n of the samples, and compares those with all others, or with what all others add up to.
"""

from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.reweighting.samples import gather_rows
from presence_ds.transfers import to_device

ROUNDING = 1e-6  # of a cosine of float32 vectors
MAX_ELEMENTS = 1 << 24  # of a float64 temporary: 128 MiB


class Gradients:
    """The joint projections of a step's samples, n of them on every rank."""

    def __init__(self, local: Tensor, counted: Tensor, group: dist.ProcessGroup | None) -> None:
        """This rank's part and what all ranks know.

        Args:
            local: [n, m] float32, this rank's samples in the order they were seen.
            counted: [ranks · n] bool on the host, by rank, which samples count; at least one does.
            group: the data-parallel group; every method is a collective of it.
        """
        self._counted, self._group = counted, group
        self._first = dist.get_rank(group) * len(local)
        own = to_device(counted[self._first :][: len(local)], local.device)
        self._local = torch.where(own[:, None], local, 0.0)
        self._count = int(counted.sum())

    def leverage(self, damping: float) -> Tensor:
        """Self-influence under curvature, h_i = g_iᵀ (F + λI)⁻¹ g_i with F = (1/N) Σ_j g_j g_jᵀ: [N] float64, host.

        In the projected space that is the ridge leverage score h_i = N · [K (K + NλI)⁻¹]_ii. F's eigenvalues, where
        they are not 0, are those of K / N, and λ = damping · mean(diag K) / N puts damping in units of their mean over
        the N samples. So h is a pure number from 0 to N that a factor in all gradients leaves as it is. It is high for
        a gradient that is large *and* unlike the others': with a large damping h tends to self-influence (over λ), with
        a small one length matters less and less.

        By the Woodbury identity h_i = N · p_iᵀ (Pᵀ P + NλI)⁻¹ p_i: what is added up over ranks is [m, m], each rank
        solves for its own samples, and the results are gathered, so that they are the same everywhere. All of it is on
        the device, in float64, which consumer GPUs compute at a 64th of the speed of float32; the host waits once, for
        the result.

        Args:
            damping: the ridge, dimensionless, `presence_ds.reweighting.config.SMALLEST_DAMPING` or more.
        """
        features = self._local.double()
        products = features.T @ features
        dist.all_reduce(products, group=self._group)
        scale = products.trace() / self._count
        scale = torch.where(scale > 0, scale, 1.0)  # where all are 0 they stay it
        products.div_(scale).diagonal().add_(damping)
        factor, _ = torch.linalg.cholesky_ex(products)  # no eigenvalue is below damping: there is nothing to wait for
        whitened = torch.linalg.solve_triangular(factor, features.T, upper=False)
        every = gather_rows(whitened.square().sum(0) * (self._count / scale), self._group)
        return every.cpu()[self._counted]

    def near_duplicate_share(self, cosine: float) -> Tensor:
        """Share of samples whose gradient has at least ``cosine`` with another one's; a gradient of 0 has none.

        Each rank compares its own samples, [n, at most all] products at a time.

        Returns:
            0-dimensional float64 on the device, the same on every rank; nothing has waited for it.
        """
        own, every = _unit(self._local), self._everywhere
        places = torch.arange(len(every), device=every.device)
        near = torch.zeros(len(own), dtype=torch.bool, device=own.device)
        step = max(1, MAX_ELEMENTS // max(own.shape))
        for others, there in zip(every.split(step), places.split(step), strict=True):
            itself = places[self._first :][: len(own), None] == there
            cosines = (own @ _unit(others).T).masked_fill_(itself, torch.nan)  # as of a gradient of 0: no cosine at all
            near |= (cosines >= cosine - ROUNDING).any(1)
        number = near.sum()
        dist.all_reduce(number, group=self._group)
        return number.double() / self._count

    @cached_property
    def _everywhere(self) -> Tensor:
        """[ranks · n, m] float32 on the device; 0 where a sample does not count."""
        return gather_rows(self._local, self._group)


def _unit(rows: Tensor) -> Tensor:
    """``rows`` [n, m] at length 1 in float64."""
    wide = rows.double()
    return wide / wide.norm(dim=1, keepdim=True)
