"""Every layer rule in narrow numbers on the device against autograd in float32."""

import copy

import pytest
import torch
from torch import Tensor, nn

from presence_ds.influence import SelfInfluence, select_parameters
from tests.capture.test_rules import LAYERS, VOCABULARY, Model, capture, per_sample_gradients
from tests.gpu.device import DEVICE

ROOM = {torch.bfloat16: 2e-2, torch.float16: 3e-3}  # of a gradient's norm: what its own rounding may come to


def off(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest distance of two gradients of the same parameter, in norms of the latter."""
    distances = [
        ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-9)).item()
        for a, b in zip(found, expected, strict=True)
    ]
    return max(distances)


@pytest.mark.parametrize("dtype", ROOM, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_terms_and_scores_in_narrow_numbers(name: str, dtype: torch.dtype) -> None:
    """As near to float32 as autograd in the same numbers is, with the same weights."""
    torch.manual_seed(0)
    narrow: nn.Module = Model(LAYERS[name](), tied=True).to(DEVICE, dtype)
    wide = copy.deepcopy(narrow).float()
    ids = torch.randint(VOCABULARY, (3, 7)).to(DEVICE)
    record = capture(narrow, ids)
    assert set(record.terms) == set(narrow.parameters())
    exact, plain = per_sample_gradients(wide, ids), per_sample_gradients(narrow, ids)
    scores = SelfInfluence(select_parameters(narrow, "all"), None, 0, DEVICE)(record.terms)
    assert scores.dtype == torch.float32
    for sample in range(len(ids)):
        weights = torch.zeros(len(ids), device=DEVICE)
        weights[sample] = 1.0
        ours = [
            sum(term.weighted_sum(weights, torch.float32) for term in record.terms[parameter])
            for parameter in narrow.parameters()
        ]
        expected = list(exact[sample].values())
        limit = ROOM[dtype] + 2 * off(list(plain[sample].values()), expected)
        assert off(ours, expected) < limit, sample
        brute = sum(gradient.double().square().sum() for gradient in expected)
        assert scores[sample].item() == pytest.approx(brute.item(), rel=3 * limit)


@pytest.mark.parametrize("dtype", [torch.float32, *ROOM], ids=str)
def test_projected_scores_are_exact_where_no_side_is_wider_than_the_projection(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model = Model(LAYERS["linear"](), tied=False).to(DEVICE, dtype)
    record = capture(model, torch.randint(VOCABULARY, (4, 9)).to(DEVICE))
    parameters = select_parameters(model, "all")
    exact, projected = (SelfInfluence(parameters, k, 0, DEVICE)(record.terms) for k in (None, 32))
    torch.testing.assert_close(projected, exact, rtol=1e-4 if dtype == torch.float32 else 2e-2, atol=0.0)
