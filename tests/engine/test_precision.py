"""Weights and updates in bf16 and fp16 against float32."""

from typing import Any

import pytest
import torch

from tests.combinations.covering import covered, named
from tests.engine import precision
from tests.engine.training import MICRO_BATCH
from tests.ranks import Ranks

SETTINGS = {"stage": [1, 2, 3], "strategy": ["one_pass", "two_pass"], "accumulation_steps": [1, 3]}


@pytest.mark.parametrize("case", covered(SETTINGS | {"stage": [0, 1, 2, 3]}), ids=named)
def test_bfloat16_trains_with_nearly_the_same_weights(two_ranks: Ranks, case: dict[str, Any]) -> None:
    for rank in two_ranks.run(precision.bfloat16, **case):
        assert rank["dtype"] == torch.float32
        torch.testing.assert_close(rank["weights"][True], rank["weights"][False], rtol=0.15, atol=0.0)
        narrow, wide = rank["losses"][True], rank["losses"][False]
        assert narrow != wide  # or nothing was rounded
        assert narrow == pytest.approx(wide, rel=5e-3)


@pytest.mark.parametrize("planned", [1, 3])
@pytest.mark.parametrize("strategy", ["one_pass", "two_pass"])
def test_an_overflow_in_a_step_of_another_length_than_planned(two_ranks: Ranks, strategy: str, planned: int) -> None:
    assert two_ranks.run(precision.fp16_overflow, strategy, planned) == [(2 * MICRO_BATCH, False)] * 2


def test_fp16_holds_weights_that_running_figures_did_not_expect(two_ranks: Ranks) -> None:
    for found in two_ranks.run(precision.fp16_with_outliers):
        assert found[0]
        assert any(found[1:]), found  # without a bound the loss scale would fall at every step


@pytest.mark.parametrize("case", covered(SETTINGS), ids=named)
def test_fp16_is_float32_on_the_steps_that_did_not_overflow(two_ranks: Ranks, case: dict[str, Any]) -> None:
    """A step that overflows leaves no trace: neither in the parameters nor in what later weights depend on."""
    ranks = two_ranks.run(precision.fp16_beside_float32, **case)
    for narrow, wide in ranks:
        skips = [index for index, applied in enumerate(narrow.applied) if not applied]
        assert skips
        assert skips[0] < precision.STEPS - 3  # training went on
        assert narrow.state_kept_over_skips
        assert any(after > before for before, after in zip(narrow.scales, narrow.scales[1:], strict=False))
        applied = [index for index, applied in enumerate(narrow.applied) if applied]
        for index, expected, norm in zip(applied, wide.weights, wide.norms, strict=True):
            torch.testing.assert_close(narrow.weights[index], expected, rtol=0.15, atol=1e-5)
            assert narrow.norms[index] == pytest.approx(norm, rel=0.02)
        for ours, theirs in zip(narrow.parameters, wide.parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0.0, atol=5e-3)
    assert ranks[0][0].applied == ranks[1][0].applied
