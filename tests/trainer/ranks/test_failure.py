"""A rank that fails ends all of them, with a traceback in its log, one line for the user and a status of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from presence_ds.errors import DataError
from presence_ds.trainer import run
from presence_ds.trainer.ranks.failure import LOST_PEER, ORDERLY, SAME_ERROR, Failures
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.rank_log import RankLog
from tests.ranks import forked, free_port
from tests.soak.kill import RANKS, rank_main
from tests.trainer.conftest import read_metrics
from tests.trainer.pool_runs import Incident
from tests.trainer.run_directory.test_hang_watch import is_rank

LATE = 10.0  # seconds on a busy machine


def fail(folder: Path, rank: int, port: int, victims: list[int], how: str) -> None:
    """One of the ranks of a run without training, some of which fail while the others wait in a collective."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    screen = os.open(folder / "screen", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(screen, 1)
    os.dup2(screen, 2)
    with Failures() as failures, Ranks() as ranks:
        failures.connect(ranks)
        with RankLog(folder / f"rank_{rank:05d}.log", redirected=rank != 0):
            ranks.barrier()
            (folder / f"began {rank}").write_text(str(time.time()))
            if rank in victims:
                globals()[how](rank)
            ranks.barrier()


def value_error(rank: int) -> None:
    raise ValueError(f"a thing of {rank}\nwith two lines")


def bare_assertion(rank: int) -> None:
    raise AssertionError


def data_error(rank: int) -> None:
    raise DataError(f"lines.jsonl cannot be read on {rank}")


def interrupted(rank: int) -> None:
    raise KeyboardInterrupt


def killed(rank: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("victims", "how", "line", "statuses", "seconds"),
    [
        ([0], "value_error", "rank 0 failed: ValueError: a thing of 0 with two lines; its traceback is in ", {79}, 0),
        ([1], "bare_assertion", "rank 1 failed: AssertionError; its traceback is in ", {79}, 0),
        ([0, 1], "value_error", " failed: ValueError: a thing of ", {79}, 0),
        ([0], "data_error", "lines.jsonl cannot be read on 0", {1}, 0),
        ([1], "data_error", "lines.jsonl cannot be read on 1", {1}, SAME_ERROR),
        ([0, 1], "data_error", "lines.jsonl cannot be read on 0", {1}, 0),
        ([1], "interrupted", "rank 1 was interrupted", {130}, 0),
        ([0], "killed", "rank 0 has ended without a word", {79, -9}, 0),
        ([1], "killed", "rank 1 has ended without a word", {79, -9}, 0),
    ],
)
def test_one_line_and_one_status(
    victims: list[int], how: str, line: str, statuses: set[int], seconds: float, tmp_path: Path
) -> None:
    port = free_port()
    ranks = [forked(fail, tmp_path, rank, port, victims, how) for rank in range(RANKS)]
    for process in ranks:
        process.join(60)
    took = time.time() - max(float(file.read_text()) for file in tmp_path.glob("began *"))
    screen = (tmp_path / "screen").read_text()
    assert {process.exitcode for process in ranks} == statuses, screen
    assert took < ORDERLY + seconds + LATE < LOST_PEER + 2 * SAME_ERROR
    errors = [found for found in screen.splitlines() if found.startswith("presence:")]
    assert len(errors) == 1, screen
    assert line in errors[0]
    assert "Traceback" not in screen
    logs = [tmp_path / f"rank_{rank:05d}.log" for rank in range(RANKS)]
    if how in ("value_error", "bare_assertion"):
        for rank in victims:
            assert logs[rank].read_text().count(f"in {how}") == 1
        assert str(tmp_path / "rank_0000") in errors[0]


class Fails(Incident):
    def fail(self, trainer: Any, metrics: Any) -> None:
        metrics["no such figure"]

    def break_model(self, trainer: Any, metrics: Any) -> None:
        """The next forward of this rank fails, when the others are in it."""
        trainer.engine.module.register_forward_pre_hook(lambda *_: metrics["no such layer"])


def rank_that_fails(arguments: list[str], rank: int, port: int, log: str, what: str, victim: int) -> None:
    make = run.make_callbacks
    run.make_callbacks = lambda *args: make(*args) | {"fails": Fails(what, 3, victim)}
    rank_main(arguments, rank, port, log)


@pytest.mark.parametrize(("what", "victim"), [("fail", 0), ("break_model", 1)])
def test_in_the_middle_of_training(
    what: str,
    victim: int,
    tiny_recipe: Path,
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a callback of rank 0, where rank 1 goes on to the next collective; in the model of rank 1."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    log, run_dir = tmp_path / "log", tmp_path / "run"
    arguments, port = [str(tiny_recipe), "--run_dir", str(run_dir), "--checkpoint.every_steps", "2"], free_port()
    ranks = [forked(rank_that_fails, arguments, rank, port, str(log), what, victim) for rank in range(RANKS)]
    for process in ranks:
        process.join(120)
    printed = log.read_text()
    assert [process.exitcode for process in ranks] == [79, 79], printed
    assert "Traceback" not in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("presence:"))
    path = run_dir / "logs" / f"rank_{victim:05d}.log"
    assert line.startswith(f"presence: error: rank {victim} failed: KeyError: 'no such ")
    assert line.endswith(f"its traceback is in {path}")
    assert path.read_text().count("KeyError") == 1
    assert [path.name for path in (run_dir / "checkpoints").glob("step_*")] == ["step_00000002"]


@pytest.mark.long
def test_a_rank_killed_under_the_launcher(tiny_recipe: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """As by a kernel without memory."""
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "presence_ds", "train", str(tiny_recipe), "--run_dir", str(run_dir)]
    command += ["--training.steps", "100000", "--num_processes", "2", "--logging.every_steps", "1"]
    with open(tmp_path / "printed", "w") as printed:
        job = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=printed, stderr=printed)
    while job.poll() is None and not ((run_dir / "metrics.jsonl").is_file() and len(read_metrics(run_dir)) > 2):
        time.sleep(0.05)
    (victim,) = (rank for rank in psutil.Process(job.pid).children(recursive=True) if is_rank(rank, "1"))
    victim.kill()
    began = time.time()
    status = job.wait(60)
    text = (tmp_path / "printed").read_text()
    assert status == 79, text
    assert time.time() - began < 3 * LATE
    assert text.count("presence: error:") == 1
    assert "presence: error: a rank was killed: Killed, for want of memory perhaps" in text
    assert "Traceback" not in text
