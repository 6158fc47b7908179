"""Resuming on the device, with every kind of signal that has a state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine import behaviour
from tests.engine.test_engine import STATEFUL
from tests.gpu.device import ON_GPU

CASES: dict[str, tuple[int, int, dict[str, Any]]] = STATEFUL | {
    "worth of kinds of samples": (1, 3, {"preset": "calibrated"}),
}
STAGES = (3, 2, 1)


def close(ours: Any, theirs: Any) -> bool:
    """Whether what is in two states is alike: to the bit on a CPU."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(close(value, theirs[name]) for name, value in ours.items())
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(ours, float) and ON_GPU:
        return ours == pytest.approx(theirs, rel=1e-3, abs=1e-5, nan_ok=True)
    return bool(ours == theirs)


@pytest.fixture
def in_one_order() -> Iterator[None]:
    """Of several additions, where torch has kernels that keep to one."""
    torch.use_deterministic_algorithms(ON_GPU, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("rank", "in_one_order")
@pytest.mark.parametrize(("number", "case"), enumerate(CASES))
def test_a_resumed_training_is_the_same(tmp_path: Path, number: int, case: str) -> None:
    """To the bit on a CPU; on a GPU, where not every kernel adds in one order, nearly."""
    accumulation_steps, half, presence = CASES[case]
    stage = STAGES[number % len(STAGES)]
    found = behaviour.resume(str(tmp_path), stage, accumulation_steps, presence, half)
    for ours, theirs in zip(found.whole, found.resumed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-3 if ON_GPU else 0.0)
    assert close(found.whole_statistics, found.resumed_statistics)
    assert close(found.whole_state, found.resumed_state)
