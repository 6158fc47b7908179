"""An array of jobs whose tasks are not all of the shares."""

import subprocess
from pathlib import Path

import pytest

from tests.trainer.conftest import ROOT


@pytest.mark.parametrize(("task", "count", "largest"), [(3, 1, 3), (1, 8, 8), (2, 4, 6)])
def test_shares_that_nobody_would_score(tmp_path: Path, task: int, count: int, largest: int) -> None:
    (tmp_path / "site.sh").touch()
    (tmp_path / "tiny.yaml").touch()
    tasks = {"ID": task, "COUNT": count, "MAX": largest}
    environment = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in tasks.items()}
    environment |= {"PRESENCE_HOME": str(ROOT), "PRESENCE_SITE": str(tmp_path / "site.sh"), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        ["bash", str(ROOT / "slurm" / "score.sbatch"), "tiny.yaml", "scores"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    said = f"the array has {count} tasks up to {largest}: use --array=0-N, or set SHARDS"
    assert (ended.returncode, ended.stderr) == (2, f"presence: error: {said}\n")
