"""The short form of `python -m tests.soak.kill`."""

import random
from pathlib import Path

import pytest

from tests.soak.kill import Soak


@pytest.mark.long
def test_killed_runs_end_as_the_undisturbed_one(tmp_path: Path) -> None:
    """Three kills of ranks at random instants; the script strikes launchers too."""
    soak = Soak(tmp_path, random.Random(0), launchers=0.0)
    soak.go(3, kills=3)
    assert soak.count == 3
