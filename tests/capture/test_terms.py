"""The weighted sums of terms in narrow dtypes: a sample's weight is as exact as float32 has it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from presence_ds.capture import DenseTerm, LookupTerm, OuterTerm, Term
from presence_ds.engine.scorer import Scorer
from presence_ds.engine.weight_gradients import weight_gradient_sweep
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from tests.models import KINDS, tiny_model, tokens

# Halfway between two numbers of bf16, of fp16, and two others. Not next to a power of two, where products of numbers
# that have 8 bits are rounded to one side.
WEIGHTS = (1.5 + 2**-8.01, 1.5 + 2**-11.01, 0.3, 1 / 3)
# What rounding the products themselves leaves, since they are of numbers on a grid.
TOLERANCE = {torch.bfloat16: 8e-4, torch.float16: 1e-4}
TERMS: dict[str, Callable[[torch.dtype], Term]] = {
    "outer with wide rows": lambda dtype: OuterTerm(_random(4, 40, 90, dtype=dtype), _random(4, 40, 30, dtype=dtype)),
    "outer with wide columns": lambda dtype: OuterTerm(
        _random(4, 40, 30, dtype=dtype), _random(4, 40, 90, dtype=dtype)
    ),
    "lookup": lambda dtype: LookupTerm(torch.arange(160).view(4, 40), _random(4, 40, 90, dtype=dtype), 160),
    "dense": lambda dtype: DenseTerm(_random(4, 30, 90, dtype=dtype)),
}


def _random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def scale_error(found: Tensor, expected: Tensor) -> float:
    """How far ``found`` is from ``expected`` by a common factor: what is left when rounding has averaged out."""
    found, expected = found.double().flatten(), expected.double().flatten()
    return abs((found @ expected / (expected @ expected)).item() - 1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", TERMS)
def test_a_weight_is_not_rounded_before_it_multiplies(kind: str, dtype: torch.dtype) -> None:
    term = TERMS[kind](dtype)
    ones = torch.ones(4, dtype=torch.float64)
    for weight in WEIGHTS:
        weights = torch.full((4,), weight, dtype=torch.float32)
        for sample in range(4):  # one at a time, or one sample's error could make up for another's
            picked = term.select(torch.tensor([sample]))
            expected = weight * picked.weighted_sum(ones[:1], dtype).double()
            assert scale_error(picked.weighted_sum(weights[:1], dtype), expected) < TOLERANCE[dtype]
        assert term.weighted_sum(weights, dtype).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_model_in_bf16_is_as_large_as_its_weight(kind: str) -> None:
    model = tiny_model(kind, tied=True, dtype=torch.bfloat16)
    ids = tokens(3, 17)
    scorer = Scorer(model, SelfInfluence(select_parameters(model, "all"), None, 0), SampleLoss())

    def gradient(weight: float) -> Tensor:
        model.zero_grad()
        scored = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
        weight_gradient_sweep(scored)(torch.full((3,), weight, dtype=torch.float64)).backward()
        return torch.cat([parameter.grad.flatten().double() for parameter in model.parameters()])

    plain = gradient(3.0)  # 1 after the division by 3 samples
    for weight in WEIGHTS:
        assert scale_error(gradient(3.0 * weight), weight * plain) < TOLERANCE[torch.bfloat16]
