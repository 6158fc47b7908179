"""What is read from srun's variables, and what ranks are told; `tests/slurm` has the real srun."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from presence_ds.errors import ConfigError
from presence_ds.launch.slurm import first_host, restart_count, slurm_step

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
}


def test_ranks_of_one_task_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    step = slurm_step(STEP)
    assert step is not None
    assert step.is_rank
    expected = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_SIZE": "4", "MASTER_ADDR": "gpu007"}
    assert step.rank_environment(4) == expected | {"MASTER_PORT": "24711"}
    assert step.rank_environment(1)["LOCAL_RANK"] == "0"  # bound to its own GPU
    monkeypatch.setenv("MASTER_ADDR", "gpu007-ib")
    monkeypatch.setenv("MASTER_PORT", "1234")
    assert (step.address, step.port) == ("gpu007-ib", 1234)


def test_a_place_for_a_launcher_and_no_step() -> None:
    step = slurm_step(STEP | {"SLURM_STEP_NUM_TASKS": "2"})
    assert step is not None
    assert not step.is_rank
    assert slurm_step({}) is None
    for outside in ("4294967291", "4294967290"):  # the batch script and an interactive step
        assert slurm_step(STEP | {"SLURM_STEP_ID": outside}) is None


def test_uneven_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="srun has started 5 tasks on 2 nodes: give --ntasks-per-node"):
        slurm_step(STEP | {"SLURM_STEP_NUM_TASKS": "5"})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("tasks", ["8", "2"])  # ranks, and places for launchers
def test_a_shell_that_is_one_of_several_tasks_is_refused(tasks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``srun --ntasks-per-node=4 --pty bash``: nobody types in the other tasks."""
    step = slurm_step(STEP | {"SLURM_STEP_NUM_TASKS": tasks})
    alone = slurm_step(STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"})
    assert step is not None
    assert alone is not None
    shell, itself = {"SLURM_TASK_PID": str(os.getppid())}, {"SLURM_TASK_PID": str(os.getpid())}
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(
        ConfigError, match=rf"^this shell is task 5 of the {tasks} tasks of .* or begin it with --ntasks=1"
    ):
        step.check_shell(shell)
    step.check_shell(itself)  # srun --pty presence train
    alone.check_shell(shell)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    step.check_shell(shell)  # srun script.sh


def test_more_tasks_than_accelerators_are_refused() -> None:
    step = slurm_step(STEP)
    assert step is not None
    for devices, on_node in [(4, None), (8, "8"), (1, "4"), (1, None)]:
        step.check_devices(devices, {} if on_node is None else {"SLURM_GPUS_ON_NODE": on_node})
    for devices, on_node in [(2, None), (2, "2"), (1, "2")]:
        with pytest.raises(
            ConfigError, match=r"4 tasks on each node, and there are 2 accelerators for them: give .*1 or 2"
        ):
            step.check_devices(devices, {} if on_node is None else {"SLURM_GPUS_ON_NODE": on_node})


WAITING = """
from presence_ds.cli import main
from presence_ds.trainer.ranks import rendezvous
rendezvous.NOTICE, rendezvous.PATIENCE = 0.5, 0.5
main(["train", *__import__("sys").argv[1:]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_rank_that_waits_for_the_others_says_so_and_ends(
    number: signal.Signals, tiny_recipe: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Started as one of two tasks, of which the other never comes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    step = STEP | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    rank = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tiny_recipe), "--run_dir", str(tmp_path / "run")],
        env=environment | step | place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = threading.Timer(120, rank.kill)
    limit.start()
    assert rank.stderr is not None
    waits = f"rank 0 of 2 has not met the others yet, at 127.0.0.1:{place['MASTER_PORT']}"
    assert any(line == f"presence: {waits}\n" for line in rank.stderr)  # says it, and goes on to wait
    rank.send_signal(number)
    began = time.monotonic()
    assert rank.wait() == 75
    limit.cancel()
    assert time.monotonic() - began < 60
    assert rank.stderr.read().endswith(f"presence: {STOPPED.format(number.name)}; {waits}\n")


STOPPED = "stopped by {} before the first step; the same command starts it again"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n[001-004,007],m1", "n001"), ("a3,b[1-2]", "a3"), ("r[0-1]n[12-13].site", "r0n12.site")],
)
def test_the_first_node(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_requeues_are_counted_in_a_job_alone() -> None:
    assert restart_count({}) is None
    assert restart_count({"SLURM_JOB_ID": "1"}) == 0
    assert restart_count({"SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": "3"}) == 3
