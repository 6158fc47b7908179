"""wandb itself, offline and with a server of the tests: one history over all starts, and no failure that matters."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from presence_ds.trainer.trackers import worker
from presence_ds.trainer.trackers.sections import LOWEST_LOSS
from presence_ds.trainer.trackers.wandb_config import WandbConfig
from presence_ds.trainer.trackers.wandb_file import records, steps_in
from tests.trainer.trackers.starts import Starts, logged
from tests.trainer.trackers.wandb_server import Server

PATIENCE = 60  # seconds
OFFLINE = WandbConfig(enabled=True, mode="offline")
ONLINE = WandbConfig(enabled=True, mode="online")


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "WANDB_RUN_ID", "WANDB_DIR", "WANDB_RESUME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    return Starts(tmp_path / "run")


def core() -> psutil.Process:
    """wandb's own process, once it is there."""

    def look() -> psutil.Process | None:
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):  # any other that ends in the meantime
                if child.name() == "wandb-core" and child.status() != psutil.STATUS_ZOMBIE:
                    return child
        return None

    return wait(look)


def wait(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def killed(starts: Starts) -> None:
    """What a kill of everything leaves, when the lines are on the disk or not."""
    core().kill()
    starts.metrics.close()
    starts.run._thread.join(PATIENCE)
    starts.lines.clear()


@pytest.mark.parametrize(
    "segments",
    [
        [(0, [1, 2, 3, 4, 5, 6], False), (4, [5, 6, 7, 8], False), (8, [9], False)],
        [(0, [10, 20, 30, 40, 50], True), (20, [25, 30, 35], True), (0, [], True), (30, [31, 32], False)],
        [(0, [1, 2, 3, 4, 5, 6, 7, 8], True), (2, [], False), (2, [10], False)],
    ],
    ids=["stopped", "killed", "other logging"],
)
def test_the_files_hold_one_history_however_often_a_run_begins(
    starts: Starts, segments: list[tuple[int, list[int], bool]]
) -> None:
    """Steps once and in order, with the values of metrics.jsonl; each start begins again after its checkpoint."""
    for after, steps, dies in segments:
        starts.begin(after, WandbConfig(enabled=True))  # without a key it is offline
        starts.log(*steps)
        if dies:
            killed(starts)
        else:
            starts.end()
            assert starts.lines == []
            assert starts.history() == starts.expected()
            assert len(starts.files()) == 1
            assert not (starts.directory.path / "wandb" / "superseded").exists()


def test_what_is_synced_and_logged_online_is_one_history(starts: Starts, server: Server) -> None:
    """`wandb sync` after every stop, to a server that has the run; then online, where nothing can be taken back."""
    for after, steps in ((0, [1, 2, 3, 4, 5, 6]), (4, [5, 6, 7, 8])):
        starts.begin(after, OFFLINE)
        starts.log(*steps)
        starts.end()
        sync = [sys.executable, "-m", "wandb", "sync", *(str(file.parent) for file in starts.files())]
        done = subprocess.run(sync, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        run_id = starts.directory.wandb_run_id.read_text().strip()
        assert [logged(line) for line in server.lines(run_id)] == starts.expected()
    before = starts.expected()

    starts.begin(6, WandbConfig(enabled=True))
    starts.log(7, 8, 9)
    starts.end()
    assert starts.lines == ["wandb has the steps up to 8 already and does not take them again"]
    sent = [logged(line) for line in server.lines(run_id)]
    assert sent == [*before, starts.expected()[-1]]
    assert starts.files() == []
    assert len(list(starts.directory.path.glob("wandb/superseded/offline-run-*/*.wandb"))) == 1

    starts.begin(9, OFFLINE)
    starts.log(10, 11)
    starts.end()
    starts.begin(11, ONLINE)  # nobody has synced the steps of the start before
    starts.log(12)
    starts.end()
    assert len(starts.lines) == 1
    assert [line["step"] for line in server.lines(run_id)] == list(range(1, 13))
    assert set(server.history) == {run_id}


def test_the_lowest_loss_is_of_all_starts(starts: Starts, server: Server) -> None:
    """Online a start is not told the lines of those before it again."""
    for after, losses in ((0, [3.0, 1.0]), (2, [2.0, 2.5])):
        starts.begin(after, ONLINE)
        for step, loss in enumerate(losses, after + 1):
            starts.put({"step": step, "validation/loss": loss})
        starts.end()
    assert starts.lines == []
    run_id = starts.directory.wandb_run_id.read_text().strip()
    assert (server.summaries[run_id]["validation/loss"], server.summaries[run_id][LOWEST_LOSS]) == (2.5, 1.0)


def test_failure_at_start_is_one_line(starts: Starts) -> None:
    starts.begin(0, ONLINE)  # there is no key
    starts.log(1)
    starts.end()
    assert len(starts.lines) == 1
    assert starts.lines[0].startswith("wandb is off for the rest of this run: ")
    assert "\n" not in starts.lines[0]


def test_failure_while_logging_is_one_line(starts: Starts) -> None:
    starts.begin(0, OFFLINE)
    starts.log(1)
    core().kill()
    for step in range(2, 200):
        starts.log(step)
        time.sleep(0.001)
    starts.end()
    assert len(starts.lines) == 1
    assert starts.lines[0].startswith("wandb is off for the rest of this run: ")
    assert "\n" not in starts.lines[0]


@pytest.mark.parametrize("what", ["server", "500", "closes", "process", "many lines"])
def test_training_does_not_wait_for_what_hangs_or_fails(
    starts: Starts, server: Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The start and the lines cost no time, and the end only so much."""
    monkeypatch.setattr(worker, "CLOSE_TIMEOUT", 1.0)
    if what == "many lines":
        monkeypatch.setattr(worker, "MOST_WAITING", 10)
    if what == "server":
        server.hangs.set()
    elif what in ("500", "closes"):
        server.trouble = what
    began = time.monotonic()
    starts.begin(0, OFFLINE if what in ("process", "many lines") else ONLINE)
    if what in ("process", "many lines"):
        child = core()
        child.suspend()
        began = time.monotonic()
    starts.log(*range(1, 50))
    assert time.monotonic() - began < 5.0  # what hangs does so for good
    starts.end()
    assert len(starts.lines) == 1
    assert ("it is 10 lines behind" if what == "many lines" else "it has not ended within 1 s") in starts.lines[0]
    wait(lambda: not starts.run._thread.is_alive())
    assert "WANDB_SERVICE" not in os.environ


def test_a_full_disk_is_told_and_the_next_start_has_all_lines(starts: Starts) -> None:
    """wandb's process may write 16 kB into a file: it goes on in silence, and what was there before stays."""
    starts.begin(0, OFFLINE)
    starts.log(*range(1, 300))
    starts.end()
    starts.begin(200, OFFLINE)
    wait(lambda: list(starts.directory.path.glob("wandb/superseded/*")))  # the lines of before are written
    resource.prlimit(core().pid, resource.RLIMIT_FSIZE, (16_000, 16_000))
    starts.log(*range(201, 2000))
    starts.end()
    assert len(starts.lines) == 1
    assert "has not all lines of metrics.jsonl" in starts.lines[0]
    kept = next(starts.directory.path.glob("wandb/superseded/*/*.wandb"))
    assert steps_in(kept) == list(range(1, 300))
    starts.begin(300, OFFLINE)
    starts.end()
    assert starts.history() == starts.expected()
    assert len(starts.lines) == 1


def test_signals_to_every_process_of_a_job_do_not_end_it(starts: Starts) -> None:
    numbers = [signal.SIGUSR1, signal.SIGUSR2]
    starts.begin(0, OFFLINE, numbers)
    for number in numbers:
        core().send_signal(number)
    time.sleep(0.5)
    starts.log(1)
    starts.end()
    assert starts.lines == []
    assert starts.history() == starts.expected()


@pytest.mark.parametrize(("stated", "files"), [("disabled", 0), ("offline", 1), ("dryrun", 1)])
def test_wandb_mode_decides_where_the_recipe_leaves_it_open(
    starts: Starts, server: Server, monkeypatch: pytest.MonkeyPatch, stated: str, files: int
) -> None:
    """There is a key and a server that answers, which is otherwise enough to go online."""
    monkeypatch.setenv("WANDB_MODE", stated)
    starts.begin(0, WandbConfig(enabled=True))
    starts.log(1, 2)
    starts.end()
    assert len(starts.files()) == files
    assert ["WANDB_MODE is disabled" in line for line in starts.lines] == ([True] if stated == "disabled" else [])


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["500", "closes"])
def test_a_server_that_fails_in_the_middle(
    starts: Starts, server: Server, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Nothing waits for it, and the next start sends what it has not taken."""
    monkeypatch.setattr(worker, "CLOSE_TIMEOUT", 2.0)
    starts.begin(0, ONLINE)
    starts.log(1, 2)
    run_id = wait(lambda: starts.directory.wandb_run_id.is_file()) and starts.directory.wandb_run_id.read_text().strip()
    wait(lambda: len(server.lines(run_id)) == 2)
    server.trouble = trouble
    began = time.monotonic()
    starts.log(*range(3, 50))
    assert time.monotonic() - began < 2.0
    starts.end()
    assert starts.lines == ["wandb is off for the rest of this run: it has not ended within 2 s"]
    server.trouble = ""
    starts.begin(49, ONLINE)
    starts.log(50)
    monkeypatch.setattr(worker, "CLOSE_TIMEOUT", PATIENCE)
    starts.end()
    assert [logged(line) for line in server.lines(run_id)] == starts.expected()


def alerts(starts: Starts) -> list[tuple[str, str]]:
    (file,) = starts.files()
    found = [record.alert for record in records(file) if record.HasField("alert")]
    return [(alert.title, alert.text) for alert in found]


def test_alerts_on_spikes_and_samples_that_are_not_finite(starts: Starts) -> None:
    """Of what is new in this start alone, and off by default."""
    counts = [{"loss_spikes": 1}, {"loss_spikes": 1}, {"loss_spikes": 3}, {"loss_spikes": 3, "nonfinite_steps": 1}]
    for config, expected in (
        (replace(OFFLINE, alerts=True), ["the loss spiked", "samples had no finite loss or self-influence"]),
        (OFFLINE, []),
    ):
        starts.begin(0, config)
        for step, line in enumerate(counts, 1):
            starts.put({"step": step, **line})
        starts.end()
        assert sorted({title for title, _ in alerts(starts)}) == sorted(expected)
    starts.begin(4, replace(OFFLINE, alerts=True))
    starts.put({"step": 5, "loss_spikes": 3, "nonfinite_steps": 1, "skipped_steps": 2})
    starts.end()
    assert alerts(starts) == [("steps were skipped", "up to step 5: 2 since the last logged step, 2 in all")]


def test_an_alert_on_a_stall(starts: Starts) -> None:
    starts.begin(0, replace(OFFLINE, alerts=True, stall_minutes=0.02))
    starts.log(7)
    time.sleep(4.0)
    starts.log(8)
    starts.end()
    assert ("training stalls", "nothing was logged for 0.02 minutes after step 7") in alerts(starts)
