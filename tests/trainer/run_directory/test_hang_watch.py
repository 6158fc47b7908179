"""Ranks that hang, for real: the stacks of all, the one to blame by name, status 77 from all ranks and the launcher."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from presence_ds.errors import ConfigError
from presence_ds.sections import check_ranges
from presence_ds.trainer import run
from presence_ds.trainer.ranks.stop_config import StopConfig
from presence_ds.trainer.run_directory.hang_watch import GRACE, LONG, Report, describe
from tests.ranks import forked, free_port
from tests.soak.kill import RANKS, rank_main
from tests.trainer.conftest import read_metrics
from tests.trainer.pool_runs import Incident

SECONDS = 4.0
LATE = 10.0  # seconds for the watch's own clock and for the end of the processes, beside other work
OPTIONS = ["--training.steps", "100000", "--evaluation.every_steps", "1000", "--checkpoint.every_steps", "5"]
OPTIONS += ["--logging.every_steps", "1", "--stop.hang_seconds", str(SECONDS)]


class Sleep(Incident):
    def sleep(self, trainer: Any, metrics: Any) -> None:
        """In the checkpoint of step 5 too, for which there is more time."""
        Path(self.argument).write_text(str(time.time()))
        time.sleep(600)

    def on_checkpoint(self, trainer: Any) -> None:
        if trainer.step == 5:
            time.sleep(1.5 * SECONDS)


def rank_that_sleeps(arguments: list[str], rank: int, port: int, log: str) -> None:
    """Rank 1 goes to sleep after the last micro-step of step 7, in which rank 0 goes on to the next collective."""
    make = run.make_callbacks
    began = str(Path(log).with_name("began"))
    run.make_callbacks = lambda *args: {"sleep": Sleep("sleep", 7, 1, began)} | make(*args)
    rank_main(arguments, rank, port, log)


def stacks_of(run_dir: Path) -> dict[str, str]:
    (folder,) = (run_dir / "stacks").iterdir()
    assert len(list(folder.glob("reader"))) == 1  # the others only write
    return {path.name: path.read_text() for path in folder.glob("*.txt")}


def check_stopped(run_dir: Path, errors: str) -> str:
    stopped = json.loads((run_dir / "stopped.json").read_text())
    assert [stopped["reason"], stopped["status"]] == ["hang", 77]
    assert errors.count("presence: error:") == 1
    assert f"presence: error: {stopped['message']}" in errors
    assert f"stacks are in {run_dir / 'stacks'}" in stopped["message"]
    return str(stopped["message"])


def test_a_rank_asleep_and_the_one_that_waits_for_it(
    tiny_recipe: Path, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a launcher. A checkpoint that took longer than a step may has raised no alarm."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    log, run_dir = tmp_path / "log", tmp_path / "run"
    arguments, port = [str(tiny_recipe), "--run_dir", str(run_dir), *OPTIONS], free_port()
    ranks = [forked(rank_that_sleeps, arguments, rank, port, str(log)) for rank in range(RANKS)]
    for process in ranks:
        process.join(240)
    ended = time.time()
    assert [process.exitcode for process in ranks] == [77, 77], log.read_text()
    assert ended - float((tmp_path / "began").read_text()) < SECONDS + LATE
    message = check_stopped(run_dir, log.read_text())
    assert "after step 7: rank 1 is in no collective but in sleep, " in message
    stacks = stacks_of(run_dir)
    assert sorted(stacks) == ["rank_0.txt", "rank_1.txt"]
    assert "in sleep" in stacks["rank_1.txt"]
    assert "in _train_step" in stacks["rank_0.txt"] or "in on_step_end" in stacks["rank_0.txt"]
    assert [path.name for path in (run_dir / "checkpoints").glob("step_*")] == ["step_00000005"]


@pytest.mark.long
def test_a_stopped_rank_under_the_launcher(tiny_recipe: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """SIGSTOP: rank 1 cannot say where it is, so that rank 0 says what the kernel knows, and wakes it to write."""
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "presence_ds", "train", str(tiny_recipe), "--run_dir", str(run_dir), *OPTIONS]
    with open(tmp_path / "errors", "w") as errors:
        job = subprocess.Popen(
            [*command, "--num_processes", "2"], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=errors
        )
    while job.poll() is None and not ((run_dir / "metrics.jsonl").is_file() and len(read_metrics(run_dir)) > 5):
        time.sleep(0.05)
    (victim,) = (rank for rank in psutil.Process(job.pid).children(recursive=True) if is_rank(rank, "1"))
    os.kill(victim.pid, signal.SIGSTOP)
    began = time.time()
    assert job.wait(240) == 77, (tmp_path / "errors").read_text()
    stopped = json.loads((run_dir / "stopped.json").read_text())
    assert stopped["unix_time"] - began < SECONDS + GRACE + LATE
    message = check_stopped(run_dir, (tmp_path / "errors").read_text())
    assert f"rank 1 did not answer (process {victim.pid} on " in message
    assert "was stopped by a signal, and was continued to write its stack)" in message
    assert sorted(stacks_of(run_dir)) == ["rank_0.txt", "rank_1.txt"]


def is_rank(process: psutil.Process, rank: str) -> bool:
    return process.environ().get("RANK") == rank and process.status() != psutil.STATUS_ZOMBIE


def report(rank: int, progress: int, idle: float, *, in_collective: bool) -> Report:
    return Report(rank, "host", 100 + rank, 7, progress, idle, in_collective, f"f{rank}, file.py:{rank}")


def test_which_rank_is_named() -> None:
    waiting = {rank: report(rank, 50, 600.0, in_collective=True) for rank in range(3)}
    slow = waiting | {1: report(1, 50, 2.0, in_collective=False)}
    behind = {rank: report(rank, 50 - (rank == 2), 600.0, in_collective=False) for rank in range(3)}
    silent = {2: "process 102 on host was disk-sleep"}
    folder = Path("stacks")
    assert "after step 7: rank 1 is in no collective but in f1, file.py:1 (last progress 2 s ago); stacks" in describe(
        slow, 3, {}, folder
    )
    assert "600 s after step 7: rank 2 is behind, in f2" in describe(behind, 3, {}, folder)
    assert "rank 2 did not answer (process 102 on host was disk-sleep);" in describe(waiting, 3, silent, folder)
    assert "no rank differs, rank 0 is in f0" in describe(waiting, 3, {}, folder)


def test_too_short_a_time_is_refused() -> None:
    assert LONG > 1
    with pytest.raises(ConfigError, match=r"stop.hang_seconds is 0.5: it must be at least 1, or null"):
        check_ranges(StopConfig(hang_seconds=0.5), "stop")
