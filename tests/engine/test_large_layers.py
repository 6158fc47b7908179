"""A large layer that takes the general rule, a loop over samples, is named when training is set up."""

import pytest

from tests.engine import large_layers
from tests.ranks import Ranks


@pytest.mark.parametrize("stage", [2, 3])
def test_a_large_layer_without_a_rule_is_named_once(two_ranks: Ranks, stage: int) -> None:
    first, other = two_ranks.run(large_layers.warnings_of, stage)
    assert other == []
    pair, doubled = first
    assert pair.startswith(
        "module layers.pair (TwoMatrices) has no layer rule for its parameters down, up, 1,008,000 numbers: it is run"
    )
    assert doubled.startswith(
        "module layers.doubled (Doubled) has no layer rule for its parameters weight, 1,008,000 numbers: it is run"
    )
