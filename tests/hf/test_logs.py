import json
import math

import pytest

from presence_ds.hf.trainer import flatten


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
