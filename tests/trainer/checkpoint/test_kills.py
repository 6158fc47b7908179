"""The short form of `python -m tests.soak.kill`."""

import random
from pathlib import Path

from tests.soak.kill import Soak


def test_killed_runs_end_as_the_undisturbed_one(tmp_path: Path) -> None:
    """Three kills at random instants, one of the launcher."""
    soak = Soak(tmp_path, random.Random(0), launchers=0.0)
    soak.go(2, kills=2)
    soak.launchers = 1.0
    soak.go(3, kills=1)
    assert soak.count == 3
    assert soak.struck["launcher"] == 1
