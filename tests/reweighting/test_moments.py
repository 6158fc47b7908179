"""Figures of earlier steps."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.reweighting.normalizers import Moments, RunningMoments
from presence_ds.reweighting.weight_functions import RunningLevel


def test_running_moments_follow_a_level_that_falls_by_orders_of_magnitude() -> None:
    running = RunningMoments(relative=True)
    for level in (1e3, 1e1, 1e-1):
        running.update(Moments(level, (0.5 * level) ** 2))
    assert running.current is not None
    assert running.current.mean == pytest.approx(1e-1)
    assert running.current.std == pytest.approx(0.5e-1)


def test_running_moments_of_logarithms_keep_their_spread_whatever_the_level() -> None:
    running = RunningMoments(relative=False)
    for level in (1e3, 1.0, 1e-9):
        running.update(Moments(math.log(level), 0.49))
    assert running.current is not None
    assert running.current.mean == pytest.approx(math.log(1e-9))
    assert running.current.std == pytest.approx(0.7)


@given(scores=st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=40), relative=st.booleans())
def test_running_moments_of_one_update_are_its_own(scores: list[float], relative: bool) -> None:
    moments = Moments.of(torch.tensor(scores))
    running = RunningMoments(relative=relative)
    assert running.current is None
    running.update(moments)
    assert running.current is not None
    assert running.current.mean == pytest.approx(moments.mean)
    assert running.current.variance == pytest.approx(moments.variance, rel=1e-9, abs=1e-30)


@given(levels=st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=20))
def test_running_level_is_a_geometric_mean_with_halving_weights(levels: list[float]) -> None:
    running = RunningLevel()
    assert running.current is None
    for level in levels:
        running.update(level)
    running.update(math.inf)  # a step of samples without a gradient changes nothing
    shares = [0.5**age for age in reversed(range(len(levels)))]
    expected = sum(share * math.log(level) for share, level in zip(shares, levels, strict=True)) / sum(shares)
    assert running.current == pytest.approx(math.exp(expected), rel=1e-9)
