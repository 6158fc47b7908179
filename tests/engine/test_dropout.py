"""Dropout falls alike in the pass that scores and in the pass that trains, and as it would in plain training."""

import pytest

from tests.engine import dropout
from tests.ranks import Ranks

CASES = [("one_pass", False), ("two_pass", False), ("two_pass", True)]  # strategy, activation checkpointing


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(("strategy", "checkpointing"), CASES)
def test_dropout_is_that_of_plain_training(
    two_ranks: Ranks, strategy: str, checkpointing: bool, stage: int, accumulation_steps: int
) -> None:
    arguments = (strategy, stage, accumulation_steps, checkpointing)
    for difference, without_dropout, same_state in two_ranks.run(dropout.differences, *arguments):
        assert difference < 1e-6
        assert without_dropout > 1e-3
        assert same_state
