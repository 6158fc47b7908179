"""Two runs in one run directory: real processes, killed and alive."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from presence_ds.errors import ConfigError
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.run_directory.lock import RunLock
from tests.ranks import Ranks as Pool
from tests.trainer.checkpoint.runs import pool_ranks

HOLD = "import sys, time; from pathlib import Path; from presence_ds.trainer.run_directory.lock import RunLock"
HOLD += "; lock = RunLock(); lock.take(Path(sys.argv[1])); print(flush=True); time.sleep(600)"


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock of tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}  # DeepSpeed prints a line when it has to look for one
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_directory_in_use_is_refused_and_one_left_by_a_kill_is_not(
    other_run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with RunLock() as lock, pytest.raises(ConfigError) as error:
        lock.take(tmp_path / "lock", patience=0.1)
    for part in ("run_dir is", "in use by a run on", socket.gethostname(), f"process {other_run.pid}", "since 20"):
        assert part in str(error.value)
    threading.Timer(0.5, other_run.kill).start()  # the last process of a killed run may take a while to go
    with RunLock() as lock:
        lock.take(tmp_path / "lock", patience=30)
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "lock").read_text() == ""


@pytest.mark.parametrize("alive", [True, False])
def test_where_kernel_locks_do_not_reach_another_host_its_heartbeat_decides(tmp_path: Path, alive: bool) -> None:
    path = tmp_path / "lock"
    record = {"host": "another-host", "pid": 1, "started": "then", "beat": 0}
    path.write_text(json.dumps(record))
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.02):
            record["beat"] += 1  # type: ignore[operator]
            with open(path, "r+") as file:  # never empty in between
                file.write(json.dumps(record))

    heart = threading.Thread(target=beat)
    if alive:
        heart.start()
    try:
        with RunLock() as lock:
            if alive:
                with pytest.raises(ConfigError, match="in use by a run on another-host, process 1, since then"):
                    lock.take(path, patience=0.5, silence=0.3)
            else:
                lock.take(path, patience=0.5, silence=0.3)
    finally:
        stop.set()
        if alive:
            heart.join()


def hold(path: Path, release_main: bool) -> str:
    """Runs on every rank: the lock is taken, rank 0 goes, and another run asks for the directory."""
    ranks: Ranks = pool_ranks()
    lock = RunLock()
    lock.acquire(path, ranks, patience=0)
    refusal = ""
    if ranks.is_main and release_main:
        lock.__exit__()
        try:
            RunLock().take(path, patience=0.1)
        except ConfigError as error:
            refusal = str(error)
    ranks.barrier()
    lock.__exit__()
    return refusal


def test_a_rank_that_outlives_rank_0_still_holds_the_directory(two_ranks: Pool, tmp_path: Path) -> None:
    assert "in use" in two_ranks.run(hold, tmp_path / "lock", True)[0]
    assert two_ranks.run(hold, tmp_path / "lock", False) == ["", ""]


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presence_ds.trainer.run_directory.lock.BEAT", 0.02)
    with RunLock() as lock:
        lock.take(tmp_path / "lock")
        seen = set()
        deadline = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add((tmp_path / "lock").read_bytes())
    assert len(seen) >= 3
