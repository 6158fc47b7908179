from typing import Any

import pytest

from presence_ds.trainer.callbacks.console import describe

METRICS: dict[str, Any] = {"loss": 2.0, "stage": "direct", "effective_sample_size": 5.0}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"tau": 0.5}, "loss 2.0000  τ 0.5 (direct)"),
        ({"clip_level": 0.0625, "stage": "constant"}, "loss 2.0000  SI clipped at 0.0625"),
        ({"stage": "constant"}, "loss 2.0000"),  # clip of a step in which no sample has a gradient, or uniform weights
        ({"loss": float("nan"), "tau": -1.0}, "loss nan  τ -1 (direct)"),
    ],
)
def test_a_line_has_what_there_is_of_the_weights(more: dict[str, Any], expected: str) -> None:
    assert describe(METRICS | more) == expected


def test_a_step_that_was_skipped() -> None:
    assert describe({"stage": "direct"}) == "no sample to learn from, the step was skipped"
