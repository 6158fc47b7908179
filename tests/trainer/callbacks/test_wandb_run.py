"""wandb itself, offline: a run is written, its id is kept, and a failure is one line and no exception."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from presence_ds.trainer.callbacks.wandb_run import WandbRun
from presence_ds.trainer.run_directory import RunDirectory
from presence_ds.trainer.wandb_config import WandbConfig

FLUSH_SECONDS = 60  # wandb writes in a process of its own, which may still be at it when finish() returns


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


def start(tmp_path: Path, config: WandbConfig) -> tuple[WandbRun, list[str]]:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir(exist_ok=True)
    lines: list[str] = []
    callback = WandbRun(config, directory, {"training": {"steps": 3}}, lines.append)
    callback.on_train_start(None)  # type: ignore[arg-type]
    return callback, lines


def offline_runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_without_a_key_the_run_is_written_offline_and_its_id_is_kept(tmp_path: Path) -> None:
    for process in (1, 2):
        callback, lines = start(tmp_path, WandbConfig(enabled=True))
        callback.on_log(None, {"step": process, "loss": 1.25})  # type: ignore[arg-type]
        callback.close()
        assert lines == []
        assert len(offline_runs(tmp_path)) == process
    run_id = (tmp_path / "run" / "wandb_run_id").read_text().strip()
    assert {path.name for path in offline_runs(tmp_path)} == {f"run-{run_id}.wandb"}


def test_what_is_logged_is_in_the_file(tmp_path: Path) -> None:
    callback, _ = start(tmp_path, WandbConfig(enabled=True, mode="offline"))
    callback.on_log(None, {"step": 7, "loss": 1.25, "stage": "direct"})  # type: ignore[arg-type]
    callback.close()
    expected = (b"loss", b"1.25", b"stage", b'"direct"')  # protobuf, in which names and values stand as they are
    deadline = time.monotonic() + FLUSH_SECONDS
    while missing := [text for text in expected if text not in offline_runs(tmp_path)[0].read_bytes()]:
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)


def test_failure_at_start_is_one_line(tmp_path: Path) -> None:
    callback, lines = start(tmp_path, WandbConfig(enabled=True, mode="online"))  # there is no key
    callback.on_log(None, {"step": 1})  # type: ignore[arg-type]
    callback.close()
    assert len(lines) == 1
    assert lines[0].startswith("wandb is off for the rest of this run: ")
    assert "\n" not in lines[0]


def test_failure_while_logging_is_one_line(tmp_path: Path) -> None:
    callback, lines = start(tmp_path, WandbConfig(enabled=True))
    callback._run.finish()  # from here on wandb refuses to log
    for step in (1, 2):
        callback.on_log(None, {"step": step})  # type: ignore[arg-type]
    callback.close()
    assert len(lines) == 1


def test_signals_to_every_process_of_a_job_do_not_end_it(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    lines: list[str] = []
    numbers = [signal.SIGUSR1, signal.SIGUSR2]
    others = psutil.Process().children(recursive=True)  # ranks of other tests
    callback = WandbRun(WandbConfig(enabled=True, mode="offline"), directory, {}, lines.append, numbers)
    callback.on_train_start(None)  # type: ignore[arg-type]
    children = [child for child in psutil.Process().children(recursive=True) if child not in others]
    assert any("wandb" in " ".join(child.cmdline()) for child in children)
    for child in children:
        for number in numbers:
            child.send_signal(number)
    time.sleep(0.5)
    callback.on_log(None, {"step": 1, "loss": 1.25})  # type: ignore[arg-type]
    callback.close()
    assert lines == []
