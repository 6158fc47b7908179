"""The paper's Algorithm 2 to the letter: K = {first encoder layer, first decoder layer}, n = 8 and n = 4, mT5."""

import pytest
import torch

from tests.engine.algorithm_2 import gradients
from tests.ranks import Ranks


@pytest.mark.parametrize("tau", [1.0, -1.0])
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("microbatches", [8, 4])
def test_the_gradient_is_that_of_algorithm_2(two_ranks: Ranks, microbatches: int, stage: int, tau: float) -> None:
    """Projections are off, and a microbatch's gradient is added up over both ranks before its norm."""
    for found, expected, weights in two_ranks.run(gradients, microbatches, stage, "two_pass", tau):
        assert len(weights) == microbatches
        assert weights.max() > 2 * weights.min()  # the microbatches are weighed differently
        scale = max(g.abs().max() for g in expected)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=3e-4 * scale.item())
