import json
import math

import pytest

from presence_ds.hf.trainer import flatten, worth_of
from tests.reweighting.value.steps import constant, simulated
from tests.reweighting.value.test_worth import observed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_word_for_is_left_out(value: float) -> None:
    """A source none of whose samples is finite has no mean."""
    sources = {0: {"samples": 2, "loss": 1.5}, 7: {"samples": 1, "loss": value}}
    statistics = {"step": 3, "stage": "constant", "clip_level": 0.25, "si_variance": value, "sources": sources}
    flat = flatten(statistics)
    assert flat == {
        "presence/clip_level": 0.25,
        "presence/source/0/samples": 2,
        "presence/source/0/loss": 1.5,
        "presence/source/7/samples": 1,
    }
    json.dumps(flat, allow_nan=False)


def test_gains_and_sources_are_logged_as_far_as_they_are_known() -> None:
    assert worth_of(None) == {}
    assert worth_of(observed(simulated(constant, 3, 16))).keys() == {
        "presence/source/0/worth",
        "presence/source/1/worth",
    }
    worth = observed(simulated(constant, 60, 16))
    flat = worth_of(worth)
    assert flat["presence/gain/clip"] == worth.gains["clip"].gain
    assert flat["presence/gain/in_use_error"] == worth.gains["in_use"].error
    assert flat["presence/source/1/worth"] == worth.sources[1].ratio
    json.dumps(flat, allow_nan=False)
