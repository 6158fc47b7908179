"""A step's weights and its update do not depend on how its samples are split over ranks and accumulation steps."""

from typing import Any

import pytest
import torch

from tests.conftest import Pools
from tests.engine.splitting import Split, train_split

SPLITS = [(1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2)]  # ranks, accumulation steps
PAPER: dict[str, Any] = {"preset": "paper", "schedule": {"switch_step": 2}}
SIGNALS: dict[str, dict[str, Any]] = {
    "self_influence": PAPER,
    "loss": PAPER | {"signal": "loss"},
    "leverage": PAPER | {"signal": "leverage"},
    "rank": PAPER | {"normalizer": "rank", "min_effective_share": 0.8},
    "clip": {},
}


def compare(pools: Pools, ranks: int, split: Split, whole: Split) -> None:
    weights, parameters = pools.get(1).run(train_split, whole)[0]
    assert weights.std(1).min() > 0.01  # samples are weighed differently, or there is nothing to compare
    for found_weights, found in pools.get(ranks).run(train_split, split):
        torch.testing.assert_close(found_weights, weights, rtol=2e-4, atol=1e-6)
        for ours, theirs in zip(found, parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(("ranks", "accumulation_steps"), SPLITS)
def test_two_pass(pools: Pools, ranks: int, accumulation_steps: int, stage: int) -> None:
    compare(pools, ranks, Split(accumulation_steps, stage=stage, presence=PAPER), Split(presence=PAPER))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_one_pass(pools: Pools, ranks: int, stage: int) -> None:
    """The other strategy on one rank is what it is compared with: both give the same weights."""
    compare(pools, ranks, Split(strategy="one_pass", stage=stage, presence=PAPER), Split(presence=PAPER))


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_signal(pools: Pools, signal: str) -> None:
    presence = SIGNALS[signal]
    compare(pools, 2, Split(2, presence=presence), Split(presence=presence))
