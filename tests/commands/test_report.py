"""`presence report`: a file, one line, and no traceback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from presence_ds import cli
from tests.trainer.gain.records import make_step, write_run

STEPS = range(1, 41)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with records and a line of metrics for every second step."""
    path = write_run(tmp_path / "runs" / "mine", {number: make_step(number) for number in STEPS})
    write_lines(path, STEPS)
    return path


def write_lines(path: Path, steps: range) -> None:
    with (path / "metrics.jsonl").open("a") as file:
        for step in steps:
            file.write(
                json.dumps({"step": step, "tokens": step * 100, "loss": 9 - step / 10, "step_time(s)": 1}) + "\n"
            )


def test_it_writes_a_page(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.relative_to(run_dir) for path in run_dir.rglob("*"))
    output = tmp_path / "page.html"
    cli.main(["report", str(run_dir), "--output", str(output)])
    assert re.fullmatch(rf"{output}: \d\.\d MB\n", capsys.readouterr().out)
    page = output.read_text()
    assert page.startswith("<!doctype html>")
    assert 'data-plot="loss"' in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "runs"]
    assert sorted(path.relative_to(run_dir) for path in run_dir.rglob("*")) == before


def test_it_is_named_report_html(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    cli.main(["report", str(run_dir), "empty", "runs/mine"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("<option ") == 2  # one that is named twice is one
    assert "recipe.yaml" in page.split('id="missing"')[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{run}", "--output", "{run}/metrics.jsonl"], "must end in .html"),
        (["{run}", "--output", "{run}/nowhere/x.html"], "cannot be written there"),
        (["{run}", "--tolerance", "0"], "tolerance is 0.0"),
        (["{run}", "--tolerance", ".nan"], "tolerance is nan"),
        (["{run}", "--every", "0", "--watch"], "every is 0.0"),
        (["{run}", "--port", "70000", "--watch"], "port is 70000"),
        (["{run}/nowhere"], "nowhere: there is no such directory"),
        (["{run}/metrics.jsonl"], "metrics.jsonl: there is no such directory"),
        ([], "run_dirs"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    words: str,
    run_dir: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", *(argument.format(run=run_dir) for argument in arguments)])
    error = capsys.readouterr().err
    assert ended.value.code == 1
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.long
def test_it_is_made_again_while_the_run_goes_on(run_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    command = [sys.executable, "-m", "presence_ds", "report", run_dir, "--output", output, "--watch", "--every", "0.2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        assert "Ctrl-C" in process.stdout.readline()
        first = fetch(address)
        version = fetch(f"{address}version")
        assert f'data-version="{version}"' in first
        assert output.read_text() == first
        write_lines(run_dir, range(41, 61))
        second = wait_for(lambda: fetch(f"{address}version"), version)
        assert f'data-version="{second}"' in fetch(address)
        assert "60" in fetch(address).split('id="summary"')[1]
        lock = run_dir / "lock"
        with subprocess.Popen(["sleep", "60"]) as trainer:
            lock.write_text(json.dumps({"host": socket.gethostname(), "pid": trainer.pid, "started": "now"}))
            third = wait_for(lambda: fetch(f"{address}version"), second)
            assert "is running" in fetch(address)
            trainer.kill()
        os.utime(lock, (0, 0))  # of a heart that has not beaten for long
        wait_for(lambda: fetch(f"{address}version"), third)
        assert "is dead" in fetch(address)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert output.is_file()


def heed_interrupts() -> None:
    """Which are ignored where a shell runs tests in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def fetch(address: str) -> str:
    with urlopen(address) as answer:
        return answer.read().decode()


def wait_for(look: Callable[[], str], before: str) -> str:
    """What ``look`` returns once that is no longer ``before``."""
    end = time.monotonic() + 60
    while (now := look()) == before:
        assert time.monotonic() < end
        time.sleep(0.05)
    return now
