"""Exact resumption: whatever the step, the ranks and the ZeRO stage, to the last bit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.checkpoint import runs
from tests.trainer.checkpoint.conftest import Train, interrupted


@pytest.mark.parametrize(
    ("ranks", "stage", "step"), [(2, 1, 1), (2, 2, 2), (2, 3, 3), (1, 1, 4), (1, 2, 5), (1, 3, 1), (2, 2, 4), (2, 3, 5)]
)
def test_a_resumed_run_is_the_undisturbed_one(
    train: Train, whole: Callable[..., Path], tmp_path: Path, ranks: int, stage: int, step: int
) -> None:
    """Parameters, optimizer, PRESENCE, sample order and scores, metrics: with dropout, accumulation and noise."""
    expected = whole(ranks, stage)
    run_dir = interrupted(expected, tmp_path / "run", step)
    assert train(run_dir, ranks=ranks, stage=stage) is None
    assert runs.left_by(run_dir) == runs.left_by(expected)
