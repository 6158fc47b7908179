"""Training where some ranks score by kernels and others, whose trial failed, do not."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.engine import kernels
from tests.influence.kernels.interpreter import VARIABLE
from tests.ranks import Ranks

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "1")
        ranks = Ranks(2, imports_anew=True)
    yield ranks
    ranks.close()


@pytest.mark.parametrize(
    "section",
    [
        {"signal": "uniform", "alignment": True},
        {"preset": "paper", "schedule": {"switch_step": 2}},
        {"preset": "clip", "granularity": "global_microbatch"},
    ],
)
def test_ranks_that_score_otherwise_have_the_same_weights(ranks: Ranks, section: dict[str, Any]) -> None:
    """To the bit: they make them of the scores that each has sent to all; and the same but for rounding as torch."""
    one, other = ranks.run(kernels.trained, [0], section)
    assert torch.equal(one["weights"], other["weights"])
    assert one["statistics"] == other["statistics"]
    for mine, theirs in zip(one["parameters"], other["parameters"], strict=True):
        assert torch.equal(mine, theirs)
    by_torch, _ = ranks.run(kernels.trained, [], section)
    torch.testing.assert_close(one["weights"], by_torch["weights"], rtol=1e-3, atol=1e-6)
    for mine, theirs in zip(one["parameters"], by_torch["parameters"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
