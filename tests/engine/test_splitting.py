"""A step's weights and its update do not depend on how its samples are split over ranks and accumulation steps."""

from typing import Any

import pytest
import torch

from tests.combinations.covering import covered, named
from tests.conftest import Pools
from tests.engine.splitting import SAMPLES, Split, Trained, train_split

PAPER: dict[str, Any] = {"preset": "paper", "schedule": {"switch_step": 2}}
SIGNALS: dict[str, dict[str, Any]] = {
    "self_influence": PAPER,
    "loss": PAPER | {"signal": "loss"},
    "leverage": PAPER | {"signal": "leverage"},
    "rank": PAPER | {"normalizer": "rank", "min_effective_share": 0.8},
    "clip": {"preset": "clip"},
    "alignment": PAPER | {"alignment": True},
    "calibrated": {"preset": "calibrated"},
    "momentum": {"preset": "calibrated", "weighting": {"features": ["norm", "momentum", "loss"]}},
}
SPLITS = {
    "ranks": [2, 1, 4],
    "accumulation_steps": [1, 2, 4],
    "strategy": ["two_pass", "one_pass"],
    "stage": [2, 0, 1, 3],
    "signal": list(SIGNALS),
}


def can_be_had(case: dict[str, Any]) -> bool:
    """With several accumulation steps one_pass weighs by the moments of earlier steps."""
    fits = case["ranks"] * case["accumulation_steps"] <= SAMPLES
    return fits and (case["strategy"] == "two_pass" or case["accumulation_steps"] == 1)


@pytest.fixture(scope="module")
def wholes() -> dict[str, Trained]:
    """What came of it by signal, of two passes over all samples at once on one rank at ZeRO stage 2."""
    return {}


@pytest.mark.parametrize("case", covered(SPLITS, can_be_had), ids=named)
def test_every_split_is_the_whole(pools: Pools, wholes: dict[str, Trained], case: dict[str, Any]) -> None:
    signal, presence = case["signal"], SIGNALS[case["signal"]]
    if signal not in wholes:
        wholes[signal] = pools.get(1).run(train_split, Split(presence=presence))[0]
    whole = wholes[signal]
    assert whole.weights[-3:].std(1).min() > 0.005  # samples are weighed differently, or there is nothing to compare
    split = Split(case["accumulation_steps"], case["strategy"], case["stage"], presence)
    every = pools.get(case["ranks"]).run(train_split, split)
    for found in every:
        torch.testing.assert_close(found.weights, whole.weights, rtol=2e-4, atol=1e-6)
        torch.testing.assert_close(found.alignments, whole.alignments, rtol=2e-3, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(found.figures, whole.figures, rtol=1e-3, atol=1e-5, equal_nan=True)
        for ours, theirs in zip(found.parameters, whole.parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-5)
        if signal == "momentum":
            assert whole.direction is not None
            assert whole.direction.norm() > 0.1
            torch.testing.assert_close(found.direction, whole.direction, rtol=1e-3, atol=1e-5)
        assert torch.equal(found.weights, every[0].weights)  # to the bit
