"""``presence score`` as it is typed, killed and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from presence_ds import cli
from tests.trainer.scoring.conftest import Score, zero
from tests.trainer.scoring.runs import read


@pytest.mark.long
def test_a_killed_command_goes_on(
    score: Score, trained: Path, scoring_recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Without a trace: as the scores of one pass, at ZeRO stage 3 to the bit."""
    assert score(tmp_path / "one", "--checkpoint", trained) is None
    folder = tmp_path / "scores"
    command = [sys.executable, "-m", "presence_ds", "score", scoring_recipe, folder, "--checkpoint", trained]
    command += ["--rows_per_file", "50", "--deepspeed", zero(3), "--num_processes", "2"]
    killed = subprocess.Popen(
        command,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while killed.poll() is None and not list(folder.glob("rows-*.parquet")):
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    left = sorted(folder.glob("rows-*.parquet"))
    assert 0 < len(left) < 15
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert f"scores: {folder}, complete" in finished.stdout
    assert read(folder).equals(read(tmp_path / "one"))


def test_what_cannot_be_done_starts_no_ranks(
    scoring_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["score", str(scoring_recipe), str(tmp_path / "scores"), "--model", "here", "--shard", "2/2"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err == "presence: error: --shard is 2/2: it must be I/N with I from 0 to N - 1\n"
    assert "starting" not in printed.out
    assert not (tmp_path / "scores").exists()
