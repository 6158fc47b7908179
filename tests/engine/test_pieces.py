"""Documents packed into rows beside the same documents each in a row of its own, under what compares them."""

from typing import Any

import pytest
import torch

from tests.engine import pieces
from tests.ranks import Ranks

PRESENCES: list[dict[str, Any]] = [
    {"weighting": {"features": ["source", "loss", "length", "norm"]}, "near_duplicates": 0.1},
    {"weighting": {"features": ["momentum", "vocabulary"]}},
    {"preset": "paper", "schedule": {"kind": "constant"}, "signal": "leverage", "near_duplicates": 0.1},
]


@pytest.mark.parametrize("presence", PRESENCES, ids=str)
def test_they_are_weighed_alike(presence: dict[str, Any], two_ranks: Ranks) -> None:
    for packed, alone in two_ranks.run(pieces.packed_and_alone, presence, 4):
        for ours, theirs in zip(packed.weights, alone.weights, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-6)
        for one, other in zip(packed.statistics, alone.statistics, strict=True):
            assert one.keys() == other.keys()
            for name in one.keys() - {"sources", "stage"}:
                assert one[name] == pytest.approx(other[name], rel=1e-2), name
        ours, theirs = map(torch.tensor, (packed.learned, alone.learned))
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)
        if "near_duplicates" in presence:
            assert any(one["near_duplicate_share"] > 0.0 for one in packed.statistics)
        for ours, theirs in zip(packed.parameters, alone.parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-4)


def test_fp16(two_ranks: Ranks) -> None:
    """Its scale grows until a piece overflows; such a step leaves no trace."""
    presence = {"preset": "paper", "schedule": {"kind": "constant", "tau_direct": 0.5}, "statistics": "running"}
    for packed, alone in two_ranks.run(pieces.packed_and_alone, presence, 12, fp16=True):
        assert packed.applied == alone.applied
        assert not all(packed.applied)
        assert packed.state_kept_over_skips
        for index, applied in enumerate(packed.applied):
            if applied:
                torch.testing.assert_close(packed.weights[index], alone.weights[index], rtol=0.15, atol=2e-3)
        for ours, theirs in zip(packed.parameters, alone.parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=5e-3)


def test_the_first_batch(two_ranks: Ranks) -> None:
    """Its documents are counted, on all ranks at once, and tried once; parts of the model keep the mode they are in."""
    found, other = two_ranks.run(pieces.first_batch)
    assert found == other
    assert found["too many"].startswith("presence.projection_dim is 32 with alignments, which takes ")
    assert "numbers for each of 9 documents at a time: lower it" in found["too many"]
    assert found["modes after the trial"] == found["modes after a step"] == [True, False, True]
    assert found["forwards"] == [False, False, True, True]
