"""The optimizers of the study, against loops over their definitions, and over a flat tensor as ZeRO has it."""

import math

import pytest
import torch

from study.optimizers import OPTIMIZERS, ClippedTensors, ShrunkEntries

OPTIONS = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SHAPES = [(3, 4), (5,), (2, 2)]


def gradients(steps: int) -> list[list[torch.Tensor]]:
    """Of which one is a spike."""
    torch.manual_seed(0)
    found = [[torch.randn(shape) * 0.1 for shape in SHAPES] for _ in range(steps)]
    found[-2][0] *= 100.0
    return found


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def trained(optimizer: torch.optim.Optimizer, given: list[torch.nn.Parameter], steps: list[list[torch.Tensor]]) -> None:
    for parts in steps:
        for parameter, part in zip(given, parts, strict=True):
            parameter.grad = part.clone()
        optimizer.step()


def clipped(steps: list[list[torch.Tensor]], warmup: int) -> list[list[torch.Tensor]]:
    """Algorithm 1 of arXiv 2502.11034, tensor by tensor."""
    bounds, found = [math.inf] * len(SHAPES), []
    for number, parts in enumerate(steps):
        whole = math.sqrt(sum(float(part.square().sum()) for part in parts))
        now = []
        for index, part in enumerate(parts):
            length = float(part.norm())
            if number < warmup:
                factor = min(1.0 / whole, 1.0)
                bounds[index] = min(bounds[index], factor * length)
            else:
                factor = min(1.05 * bounds[index] / length, 1.0)
                bounds[index] = 0.98 * bounds[index] + 0.02 * factor * length
            now.append(part * factor)
        found.append(now)
    return found


def shrunk(steps: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    means = [torch.zeros(shape) for shape in SHAPES]
    squares = [torch.zeros(shape) for shape in SHAPES]
    found = []
    for parts in steps:
        now = []
        for index, part in enumerate(parts):
            means[index] = 0.95 * means[index] + 0.05 * part
            squares[index] = 0.95 * squares[index] + 0.05 * part**2
            signal = means[index] ** 2
            now.append(part * signal / (signal + (0.05 / 1.95) * (squares[index] - signal)))
        found.append(now)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_they_are_adamw_of_other_gradients(name: str) -> None:
    steps = gradients(8)
    options = {"warmup": 3} if name == "clipped_tensors" else {}
    ours, theirs = parameters(), parameters()
    trained(OPTIMIZERS[name](ours, **OPTIONS, **options), ours, steps)
    changed = clipped(steps, 3) if name == "clipped_tensors" else shrunk(steps)
    trained(torch.optim.AdamW(theirs, **OPTIONS), theirs, changed)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_spike_is_clipped() -> None:
    steps = gradients(8)
    assert clipped(steps, 3)[-2][0].norm() < 0.02 * steps[-2][0].norm()


@pytest.mark.parametrize("make", [ClippedTensors, ShrunkEntries])
def test_a_flat_tensor_with_padding_is_its_parts(make: type[torch.optim.AdamW]) -> None:
    """ZeRO takes the tensors of a group together once the optimizer has been made."""
    steps = gradients(6)
    apart, together = parameters(), parameters()
    options = {"warmup": 2} if make is ClippedTensors else {}
    trained(make(apart, **OPTIONS, **options), apart, steps)
    optimizer = make(together, **OPTIONS, **options)
    flat = torch.nn.Parameter(torch.cat([*(part.detach().flatten() for part in together), torch.zeros(3)]))
    optimizer.param_groups[0]["params"] = [flat]
    trained(optimizer, [flat], [[torch.cat([*(part.flatten() for part in parts), torch.zeros(3)])] for parts in steps])
    expected = torch.cat([part.detach().flatten() for part in apart])
    torch.testing.assert_close(flat.detach()[: len(expected)], expected)
