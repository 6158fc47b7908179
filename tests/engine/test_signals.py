"""Signals from the gathered joint projections, against the gradients themselves."""

import pytest
import torch

from tests.engine import signals
from tests.engine.training import MICRO_BATCH
from tests.models import VOCABULARY
from tests.ranks import Ranks


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(
    "presence",
    [
        {"signal": "alignment", "projection_dim": VOCABULARY},
        {"signal": "leverage", "projection_dim": 64, "damping": 0.3},
    ],
)
def test_weights_follow_the_exact_signal(two_ranks: Ranks, presence: dict[str, object], stage: int) -> None:
    """log w is τ z + constant, so it is linear in the signal; sketches of width 97², 64² leave some noise."""
    found = two_ranks.run(signals.log_weights, presence, stage)
    for weights, signal in found:
        assert weights.std() > 0.3
        assert torch.corrcoef(torch.stack([weights, signal]))[0, 1] > 0.95
    assert torch.equal(found[0][0], found[1][0])


def test_a_sample_without_targets_is_no_reference(two_ranks: Ranks) -> None:
    for found, expected in two_ranks.run(signals.references):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("stage", [2, 3])
def test_near_duplicates_are_found_across_ranks(two_ranks: Ranks, stage: int) -> None:
    assert two_ranks.run(signals.near_duplicates, stage) == [2 / (2 * MICRO_BATCH)] * 2


@pytest.mark.parametrize(("count", "width"), [(3, 7), (4, 7), (40, 5)])
def test_few_and_many_samples_are_compared_over_ranks(two_ranks: Ranks, count: int, width: int) -> None:
    """Below ``width`` samples every rank solves for all of them, above it for its own; the same weights everywhere."""
    found = two_ranks.run(signals.comparisons, count, width)
    for rank in found:
        leverage, expected = rank["leverage"]
        torch.testing.assert_close(leverage, expected, rtol=1e-6, atol=0.0)
        assert torch.equal(leverage, found[0]["leverage"][0])
        share, expected = rank["near duplicates"]
        assert share == pytest.approx(expected)
        assert share >= 2 / (2 * count - 1)
        assert torch.equal(rank["weights"], found[0]["weights"])
        assert rank["weights"].sum().item() == pytest.approx(1.0)
        assert rank["weights"][1, 0] == 0.0
