"""Normalisers, weight functions and the floor under the effective sample size, against independent formulas."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from presence_ds.reweighting.normalizers import LogZScore, Rank, ZScore
from presence_ds.reweighting.weight_functions import Saturating, Softmax
from tests.reweighting.steps import finished, reweighting

pytestmark = pytest.mark.usefixtures("one_process")

scores_above_0 = st.lists(st.floats(2.0**-20, 1e6, width=32), min_size=2, max_size=40)
z_scores = st.lists(st.floats(-6, 6), min_size=2, max_size=40).map(lambda z: torch.tensor(z, dtype=torch.float64))


@given(scores=scores_above_0)
def test_rank_takes_normal_quantiles_of_mean_ranks(scores: list[float]) -> None:
    count = len(scores)
    expected = [
        NormalDist().inv_cdf((sum(other < s for other in scores) + sum(other == s for other in scores) / 2) / count)
        for s in scores
    ]
    z = Rank().apply(torch.tensor(scores, dtype=torch.float64), None)
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-9, atol=1e-12)


@given(scores=scores_above_0, tau=st.floats(-3, 3))
def test_rank_weights_survive_any_increasing_map(scores: list[float], tau: float) -> None:
    values = torch.tensor(scores)
    weights = finished(reweighting(tau, normalizer="rank"), values).local
    for mapped in (values * 2.0**-20, values.double().pow(3).float()):  # neither merges neighbours in float32
        assert torch.equal(finished(reweighting(tau, normalizer="rank"), mapped).local, weights)


def test_rank_keeps_the_effective_sample_size_it_promises() -> None:
    """n·exp(−τ²), whatever the distribution."""
    scores = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(-3)
    for tau in (0.25, -0.5, 1.0):
        found = finished(reweighting(tau, normalizer="rank"), scores).statistics["effective_sample_size"]
        assert found == pytest.approx(len(scores) * math.exp(-(tau**2)), rel=0.03)


@given(scores=scores_above_0, tau=st.floats(-2, 2), factor=st.sampled_from([2.0**-60, 2.0**10, 2.0**50]))
def test_log_zscore_is_a_zscore_of_logarithms(scores: list[float], tau: float, factor: float) -> None:
    logs = np.log(np.asarray(scores, np.float32).astype(np.float64))
    deviation = logs.std()
    assume(deviation == 0 or deviation > 1e-6)
    z = np.maximum((logs - logs.mean()) / deviation, -3) if deviation else np.zeros_like(logs)
    expected = np.exp(tau * z) / np.exp(tau * z).sum()
    target = {"normalizer": "log_zscore"}
    np.testing.assert_allclose(finished(reweighting(tau, **target), scores).local, expected, rtol=1e-5)
    scaled = torch.tensor(scores) * factor  # powers of two: exact in float32
    np.testing.assert_allclose(finished(reweighting(tau, **target), scaled).local, expected, rtol=1e-5)


@given(scores=scores_above_0)
def test_a_score_of_zero_is_as_low_as_any_and_moves_no_other(scores: list[float]) -> None:
    values = torch.tensor([*scores, 0.0])
    normalizer = LogZScore()
    moments = normalizer.fit(values)
    assert moments == normalizer.fit(values[:-1])
    z = normalizer.apply(values, moments)
    assert z[-1] == -3.0 == z.min().clamp(max=-3.0)
    assert finished(reweighting(-1.0, normalizer="log_zscore"), [0.0, 0.0]).local.tolist() == [0.5, 0.5]


@given(z=z_scores, tau=st.floats(-100, 100))
def test_softmax_of_a_whole_step_is_exact(z: Tensor, tau: float) -> None:
    u = Softmax(ZScore()).of_z_scores(z, tau, complete=True)
    torch.testing.assert_close(u / u.sum(), torch.softmax(tau * z, 0), rtol=1e-12, atol=0.0)


def test_an_outlier_under_earlier_statistics_does_not_overflow() -> None:
    u = Softmax(ZScore()).of_z_scores(torch.tensor([1e30, 0.0, -1e30], dtype=torch.float64), 1.0, complete=False)
    assert u.isfinite().all()
    assert u[0] / u.sum() > 0.999
    assert u[2] > 0


@given(z=z_scores, tau=st.floats(-100, 100), threshold=st.floats(0, 3))
def test_saturating_touches_one_tail_alone(z: Tensor, tau: float, threshold: float) -> None:
    u = Saturating(ZScore(), threshold).of_z_scores(z, tau, complete=True)
    tail = z > threshold if tau < 0 else z < -threshold
    assert (u[~tail] == 1).all()
    assert ((u > 0) & (u <= 1)).all()
    excess = (z.abs() - threshold)[tail].numpy()
    np.testing.assert_allclose(u[tail], 2 / (1 + np.exp(np.minimum(abs(tau) * excess, 20))), rtol=1e-9)
    direction = -1 if tau < 0 else 1  # a higher score never fares worse with τ > 0, nor better with τ < 0
    ordered = u[z.argsort()] * direction
    assert (ordered.diff() >= 0).all() or tau == 0
    assert (Saturating(ZScore(), threshold).of_z_scores(z, 0.0, complete=True) == 1).all()


def test_clip_leaves_samples_without_a_gradient_alike() -> None:
    result = finished(reweighting(weighting={"kind": "clip"}), [0.0, 0.0, 0.0])
    assert result.terms.tolist() == [1.0] * 3
    assert "clip_level" not in result.statistics


@given(scores=scores_above_0, without=st.integers(0, 5), quantile=st.floats(0.01, 1))
def test_clip_bounds_every_samples_self_influence(scores: list[float], without: int, quantile: float) -> None:
    scores = [*scores, *[0.0] * without]
    values = np.asarray(scores, np.float32).astype(np.float64)
    result = finished(reweighting(weighting={"kind": "clip", "quantile": quantile}), scores)
    level = float(np.quantile(values[values > 0], quantile))
    assert result.statistics["clip_level"] == pytest.approx(level)
    u = result.terms.numpy()
    assert (u**2 * values <= level * (1 + 1e-9)).all()
    assert (u[values <= level * (1 - 1e-9)] == 1).all()
    above = values > level * (1 + 1e-9)
    np.testing.assert_allclose((u**2 * values)[above], level, rtol=1e-9)
    np.testing.assert_allclose(result.local, u / u.sum(), rtol=1e-6)


def test_clip_takes_the_level_of_earlier_steps() -> None:
    target = reweighting(running=True, weighting={"kind": "clip"})
    steps = [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [5.0, 15.0, 1000.0]]
    levels = [finished(target, scores, step).statistics["clip_level"] for step, scores in enumerate(steps, start=1)]
    assert levels == pytest.approx([2.0, 2.0, math.exp((math.log(2) + 2 * math.log(20)) / 3)])


KINDS: list[dict[str, Any]] = [
    {},
    {"normalizer": "rank"},
    {"normalizer": "log_zscore"},
    {"weighting": {"kind": "saturating", "threshold": 0.3}},
]


@pytest.mark.parametrize("fields", KINDS, ids=str)
@given(scores=scores_above_0, tau=st.floats(-100, 100), share=st.floats(0.05, 0.95))
def test_the_floor_is_reached_or_tau_is_left_alone(
    fields: dict[str, Any], scores: list[float], tau: float, share: float
) -> None:
    scores = [*scores, math.nan]  # does not count
    result = finished(reweighting(tau, min_effective_share=share, **fields), scores)
    floor = share * (len(scores) - 1)
    found = result.statistics
    assert found["tau_scheduled"] == tau
    assert found["effective_sample_size"] >= floor * (1 - 1e-9)
    assert abs(found["tau"]) <= abs(tau)
    assert found["tau"] * tau >= 0
    free = finished(reweighting(tau, **fields), scores)
    if free.statistics["effective_sample_size"] >= floor * (1 + 1e-9):
        assert found["tau"] == tau
        assert torch.equal(result.local, free.local)
    elif found["tau"] != tau:  # as large as it may be
        more = finished(reweighting(found["tau"] * (1 + 1e-6), **fields), scores)
        assert more.statistics["effective_sample_size"] <= floor * (1 + 1e-9)
