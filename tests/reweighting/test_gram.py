"""Ridge leverage and near-duplicates against their definitions in gradient space, of few samples and of many."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_leaves

from presence_ds.reweighting import gram
from presence_ds.reweighting.config import SMALLEST_DAMPING
from presence_ds.reweighting.gram import Gradients
from presence_ds.trainer.estimate.activations import Allocations
from tests.engine.one_device import DEVICE, OneDevice, collectives_of_the_device
from tests.reweighting.steps import finished, reweighting

pytestmark = pytest.mark.usefixtures("one_process")

shapes = st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(0, 1000))


def gradients(shape: tuple[int, int, int]) -> Tensor:
    count, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) * torch.randn(count, 1, generator=generator).exp()


def leverage(features: Tensor, damping: float) -> Tensor:
    return Gradients(features, torch.ones(len(features), dtype=torch.bool), None).leverage(damping)


@given(shape=shapes, damping=st.floats(0.01, 100))
def test_leverage_is_self_influence_under_curvature(shape: tuple[int, int, int], damping: float) -> None:
    """h_i = g_iᵀ (F + λI)⁻¹ g_i with F = (1/N) Σ g gᵀ and λ = damping · mean(‖g‖²) / N, by an explicit inverse."""
    g = gradients(shape).double().numpy()
    count, width = g.shape
    curvature = g.T @ g / count
    ridge = damping * (g**2).sum(1).mean() / count
    expected = np.einsum("ip,pq,iq->i", g, np.linalg.inv(curvature + ridge * np.eye(width)), g)
    found = leverage(gradients(shape), damping)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert ((found >= 0) & (found < count)).all()


@pytest.mark.parametrize("count", [1, 3, 40, 200])
@pytest.mark.parametrize("damping", [SMALLEST_DAMPING, 1.0])
def test_leverage_is_that_of_the_matrix_of_all_pairs(count: int, damping: float) -> None:
    """N · [K (K + NλI)⁻¹]_ii, of fewer samples than numbers and of more, some twice, some small, some 0."""
    features = gradients((count, 40, count))
    features = torch.cat([features, features[:2], 1e-4 * features[-1:], torch.zeros(2, 40)])
    pairs = features.double() @ features.double().T
    ridge = damping * pairs.diagonal().mean() * torch.eye(len(pairs), dtype=torch.float64)
    expected = len(pairs) * torch.linalg.solve(pairs + ridge, pairs).diagonal()
    torch.testing.assert_close(leverage(features, damping), expected, rtol=1e-8, atol=0.0)


def test_the_device_is_asked_for_the_leverages_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Questions(OneDevice):
        number = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = super().__torch_dispatch__(func, types, args, kwargs)
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.is_meta]
            if given and not any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves(out)):
                self.number += 1
            return out

    counted = torch.tensor([True, False, True, True])
    with collectives_of_the_device(monkeypatch), Questions() as questions:
        found = Gradients(torch.empty(4, 6, device=DEVICE), counted, None)
        share = found.near_duplicate_share(0.9)
        assert questions.number == 0
        assert found.leverage(0.5).shape == (3,)
        assert questions.number == 1
        share.item()
        assert questions.number == 2


@given(shape=shapes)
def test_leverage_has_no_unit_and_tends_to_self_influence(shape: tuple[int, int, int]) -> None:
    g = gradients(shape)
    torch.testing.assert_close(leverage(g * 2.0**-40, 1.0), leverage(g, 1.0))
    squares = g.double().square().sum(1)
    heavy = leverage(g, 1e9) * 1e9 / len(g)
    torch.testing.assert_close(heavy, squares / squares.mean(), rtol=1e-5, atol=0.0)


def test_leverage_survives_the_least_damping_and_gradients_of_zero() -> None:
    twice = torch.cat([gradients((6, 3, 0))] * 3)  # rank 3 of 18
    h = leverage(twice, 1e-6)
    assert h.sum().item() == pytest.approx(3 * 18, rel=1e-3)
    assert leverage(torch.zeros(4, 3), 1.0).tolist() == [0.0] * 4


@given(shape=shapes, cosine=st.floats(0.05, 0.95))
def test_near_duplicates_are_counted_pair_by_pair(shape: tuple[int, int, int], cosine: float) -> None:
    features, spoilt = gradients(shape), torch.full((1, shape[1]), math.nan)
    g = features.double()
    near = [
        any(j != i and torch.cosine_similarity(g[i], g[j], dim=0).item() >= cosine for j in range(len(g)))
        for i in range(len(g))
    ]
    counted = torch.tensor([False] + [True] * len(g) + [False])
    found = Gradients(torch.cat([spoilt, features, features[:1]]), counted, None)
    for elements in (1 << 24, 8):  # all products at once, and a few
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gram, "MAX_ELEMENTS", elements)
            assert found.near_duplicate_share(cosine).item() == pytest.approx(sum(near) / len(near))


def test_no_rank_holds_what_all_pairs_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3,000 samples in 4 numbers each: a matrix of all pairs has 72 MB."""
    features = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(gram, "MAX_ELEMENTS", 1 << 16)
    found = Gradients(features, torch.ones(3000, dtype=torch.bool), None)
    with Allocations("cpu") as allocations:
        assert found.leverage(0.5).sum().item() < 4 * 3000
        assert 0.0 < found.near_duplicate_share(0.999).item() < 1.0
    assert allocations.peak < 4 << 20


def test_copies_are_near_duplicates_and_empty_or_spoilt_gradients_are_not() -> None:
    a, b = gradients((2, 50, 3))
    features = torch.stack([a, b, 3 * a, -a, torch.zeros(50), torch.full((50,), math.nan)])
    for cosine in (0.9, 1.0):
        target = reweighting(near_duplicates=cosine)
        result = finished(target, features.square().sum(1), features=features)
        assert result.statistics["near_duplicate_share"] == pytest.approx(2 / 5)
