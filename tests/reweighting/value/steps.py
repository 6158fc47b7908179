"""Steps of samples whose worth is known: squared norm n, loss, and an alignment a around a given E[a | sample]."""

from collections.abc import Callable

import torch
from torch import Tensor

from presence_ds.reweighting.samples import Samples

Expected = Callable[[Tensor, Tensor], Tensor]  # of a, from n and the loss


def simulated(expected: Expected, steps: int, count: int, noise: float = 1.0, seed: int = 0) -> Samples:
    """``count`` samples of each of ``steps`` steps: fields [steps, count], n log-normal, losses around 3.

    Noise of a has the spread ``noise`` · √n, as that of an inner product with a vector has.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(3, steps, count, generator=generator, dtype=torch.float64)
    norms, losses = (0.8 * draws[0]).exp(), 3.0 + 0.5 * draws[1]
    return Samples(
        losses=losses.float(),
        targets=torch.full((steps, count), 31),
        sources=(losses > 3.0).long(),
        counted=torch.ones(steps, count, dtype=torch.bool),
        scores=norms.float(),
        alignment=(expected(norms, losses) + noise * norms.sqrt() * draws[2]).float(),
    )


def step_of(samples: Samples, step: int) -> Samples:
    """One of the steps, fields [count]."""
    return Samples(**{name: value[step] for name, value in vars(samples).items() if value is not None})


def constant(norms: Tensor, losses: Tensor) -> Tensor:
    """The same alignment whatever the norm: 1/n is best."""
    return torch.full_like(norms, 0.3)


def proportional(norms: Tensor, losses: Tensor) -> Tensor:
    """Alignment for the norm: uniform is best."""
    return 0.3 * norms


def of_roots(norms: Tensor, losses: Tensor) -> Tensor:
    """Alignment for the length of the gradient: normalized gradients are best."""
    return 0.3 * norms.sqrt()


def of_losses(norms: Tensor, losses: Tensor) -> Tensor:
    """The higher the loss, the less a sample is good for."""
    return 0.3 * norms * (6.0 * (3.4 - losses)).sigmoid()
