"""`engine.compile` changes nothing but the time a step takes."""

from typing import Any

import pytest

from tests.engine import compiling
from tests.ranks import Ranks


@pytest.mark.parametrize(
    ("kind", "accumulation_steps", "checkpointing", "presence", "graphs"),
    [
        ("gpt2 with dropout", 3, False, {"strategy": "two_pass"}, 1),  # dropout falls as it did in the score pass
        ("llama", 1, False, {"signal": "loss"}, 1),
        ("llama", 2, True, {"strategy": "two_pass"}, 1),
    ],
)
def test_compiled_training_is_the_same(
    two_ranks: Ranks, kind: str, accumulation_steps: int, checkpointing: bool, presence: dict[str, Any], graphs: int
) -> None:
    arguments = (kind, "aot_eager", accumulation_steps, checkpointing, presence)
    for differs, moved, compiled in two_ranks.run(compiling.compare, *arguments):
        assert differs < 1e-5
        assert moved > 1e-2
        assert compiled == graphs  # and none anew at a later step
