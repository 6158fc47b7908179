"""PRESENCE adds one small all-gather to a step, for alignments an all-reduce, and leaves ZeRO-3 its prefetching."""

from typing import Any

import pytest

from tests.combinations.covering import covered, named
from tests.engine import collectives
from tests.ranks import Ranks

SETTINGS = {
    "stage": [0, 1, 2, 3],
    "strategy": [None, "one_pass", "two_pass"],
    "accumulation_steps": [1, 2],
    "preset": ["clip", "calibrated"],
}


@pytest.mark.parametrize("case", covered(SETTINGS), ids=named)
def test_bytes_are_those_of_the_model(two_ranks: Ranks, case: dict[str, Any]) -> None:
    (counted, _), (expected, _) = (
        two_ranks.run(collectives.count, *case.values(), False, False),
        two_ranks.run(collectives.expect, *case.values(), False),
    )
    for kind in counted.keys() | expected.keys():
        found, model = (counts.get(kind, (0, 0))[1] for counts in (counted, expected))
        # over it: norms and overflow flags; under it: nothing of an embedding or a root is gathered for a backward
        assert model * 0.9 <= found <= model + 100, (kind, counted, expected)


@pytest.mark.parametrize("evaluates", [False, True])
def test_zero_3_gathers_as_often_as_without(two_ranks: Ranks, evaluates: bool) -> None:
    """All parameters fit into one prefetch: every pass gathers once, the backward after it not at all."""
    plain, one_pass, two_pass = (
        two_ranks.run(collectives.count, 3, strategy, 1, "clip", evaluates, True)[0]["all-gather"]
        for strategy in (None, "one_pass", "two_pass")
    )
    assert plain[0] == 1
    assert one_pass[0] == 2
    assert two_pass[0] == 3
    assert 0 < one_pass[1] - plain[1] < 100
    assert two_pass[1] <= 2 * plain[1] + 100
