"""Ridge leverage and near-duplicates against their definitions in gradient space."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from presence_ds.reweighting.gram import gram, leverage, near_duplicate_share
from tests.reweighting.steps import finished, reweighting

shapes = st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(0, 1000))


def gradients(shape: tuple[int, int, int]) -> Tensor:
    count, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) * torch.randn(count, 1, generator=generator).exp()


@given(shape=shapes, damping=st.floats(0.01, 100))
def test_leverage_is_self_influence_under_curvature(shape: tuple[int, int, int], damping: float) -> None:
    """h_i = g_iᵀ (F + λI)⁻¹ g_i with F = (1/N) Σ g gᵀ and λ = damping · mean(‖g‖²) / N, by an explicit inverse."""
    g = gradients(shape).double().numpy()
    count, width = g.shape
    curvature = g.T @ g / count
    ridge = damping * (g**2).sum(1).mean() / count
    expected = np.einsum("ip,pq,iq->i", g, np.linalg.inv(curvature + ridge * np.eye(width)), g)
    found = leverage(gram(gradients(shape)), damping)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert ((found >= 0) & (found < count)).all()


@given(shape=shapes)
def test_leverage_has_no_unit_and_tends_to_self_influence(shape: tuple[int, int, int]) -> None:
    g = gradients(shape)
    torch.testing.assert_close(leverage(gram(g * 2.0**-40), 1.0), leverage(gram(g), 1.0))
    squares = g.double().square().sum(1)
    heavy = leverage(gram(g), 1e9) * 1e9 / len(g)
    torch.testing.assert_close(heavy, squares / squares.mean(), rtol=1e-5, atol=0.0)


def test_leverage_survives_the_least_damping_and_gradients_of_zero() -> None:
    twice = torch.cat([gradients((6, 3, 0))] * 3)  # rank 3 of 18
    h = leverage(gram(twice), 1e-6)
    assert h.sum().item() == pytest.approx(3 * 18, rel=1e-3)
    assert leverage(gram(torch.zeros(4, 3)), 1.0).tolist() == [0.0] * 4


@given(shape=shapes, cosine=st.floats(0.05, 0.95))
def test_near_duplicates_are_counted_pair_by_pair(shape: tuple[int, int, int], cosine: float) -> None:
    g = gradients(shape).double()
    near = [
        any(j != i and torch.cosine_similarity(g[i], g[j], dim=0).item() >= cosine for j in range(len(g)))
        for i in range(len(g))
    ]
    assert near_duplicate_share(gram(g), cosine) == pytest.approx(sum(near) / len(near))


@pytest.mark.usefixtures("one_process")
def test_copies_are_near_duplicates_and_empty_or_spoilt_gradients_are_not() -> None:
    a, b = gradients((2, 50, 3))
    features = torch.stack([a, b, 3 * a, -a, torch.zeros(50), torch.full((50,), math.nan)])
    for cosine in (0.9, 1.0):
        target = reweighting(near_duplicates=cosine)
        result = finished(target, features.square().sum(1), features=features)
        assert result.statistics["near_duplicate_share"] == pytest.approx(2 / 5)
