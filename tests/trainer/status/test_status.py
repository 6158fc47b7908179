"""What a run is doing is told from its directory alone, which stays as it was."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from presence_ds import cli
from presence_ds.trainer.run_directory.lock import RunLock
from presence_ds.trainer.status.status import Status, read_status
from tests.ranks import Ranks
from tests.trainer.conftest import write_recipe
from tests.trainer.pool_runs import train


def make_run(path: Path, **files: Any) -> Path:
    """A run directory of ten planned steps; values that are no text are written as JSON."""
    path.mkdir()
    (path / "recipe.yaml").write_text("training: {steps: 10}\n")
    for name, content in files.items():
        file = path / name.replace("_", ".", 1)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "loss": 5.0 - step, "eta(s)": 61.2}) + "\n" for step in steps)


def record(**changes: Any) -> dict[str, Any]:
    return {"host": os.uname().nodename, "pid": os.getpid(), "started": "today", "beat": 3} | changes


def status_of(path: Path, **options: Any) -> Status:
    (found,) = read_status([path], **options)
    return found


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing yet": ({}, "not started", ""),
    "first steps": ({"lock": record(), "metrics_jsonl": lines(1, 2)}, "running", "process"),
    "set up": ({"lock": record()}, "running", "since today"),
    "finished": ({"lock": "", "metrics_jsonl": lines(10), "summary_json": {"steps": 10}}, "finished", ""),
    "stopped": (
        {"lock": "", "metrics_jsonl": lines(3), "stopped_json": {"message": "signal 15\x1b[31m", "status": 143}},
        "stopped",
        "(exit status 143)",
    ),
    "going on after a stop": (
        {"lock": record(), "metrics_jsonl": lines(3), "stopped_json": {"message": "signal 15", "status": 143}},
        "running",
        "",
    ),
    "killed": ({"lock": record(pid=dead_process()), "metrics_jsonl": lines(3)}, "dead", "ended without a word"),
    "killed, and its lock file gone": ({"metrics_jsonl": lines(3)}, "dead", "ended without a word"),
    "a lock file without a process": ({"lock": {"host": os.uname().nodename}, "metrics_jsonl": lines(3)}, "dead", ""),
    "half a lock file": ({"lock": '{"host": "a', "metrics_jsonl": lines(3)}, "dead", ""),
    "half a stopped.json": ({"lock": "", "metrics_jsonl": lines(3), "stopped_json": "{"}, "dead", ""),
    "a recipe of no use": ({"lock": record(), "recipe_yaml": "training: 3\n"}, "running", ""),
    "figures that are none": (
        {
            "lock": record(),
            "metrics_jsonl": '{"step": 3, "loss": null, "eta(s)": Infinity, "tau": "x", "gain/in_use": 2}\n'
            '{"step": 4, "tau": 1, "loss": 5, "stage": null, "validation/loss": 6, "validation/a/loss": null}\n',
        },
        "running",
        "",
    ),
    "metrics of no use": ({"lock": record(), "metrics_jsonl": '{"step": "x"}\n\x00'}, "running", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_states(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    files, state, told = CASES[name]
    run_dir = make_run(tmp_path / "run", **files)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_dir.iterdir()}
    found = status_of(run_dir, silence=0.1)
    assert found.state == state
    assert told in found.told
    monkeypatch.setattr("presence_ds.commands.status_report.read_status", partial(read_status, silence=0.1))
    cli.main(["status", str(run_dir)])
    printed = capsys.readouterr().out
    assert state in printed
    assert "\x1b" not in printed
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_dir.iterdir()} == before


def test_another_process_may_have_its_number(tmp_path: Path) -> None:
    """A killed run's lock file is old, and nobody writes into it."""
    run_dir = make_run(tmp_path / "run", metrics_jsonl=lines(1), lock=record())
    os.utime(run_dir / "lock", (1e9, 1e9))
    assert status_of(run_dir, silence=0.5).state == "dead"


@pytest.mark.parametrize("where", [{"host": "far"}, {"pid": dead_process()}])  # or in another container of this name
def test_a_run_elsewhere_lives_if_its_heart_beats(tmp_path: Path, where: dict[str, Any]) -> None:
    run_dirs = [make_run(tmp_path / name, lock=record(**where, beat=1)) for name in ("beats", "ends", "is_silent")]

    def beat() -> None:
        time.sleep(0.4)
        (run_dirs[0] / "lock").write_text(json.dumps(record(**where, beat=2)))
        (run_dirs[1] / "lock").write_text("")

    thread = threading.Thread(target=beat)
    thread.start()
    states = [status.state for status in read_status(run_dirs, silence=2.0)]
    thread.join()
    assert states == ["running", "not started", "dead"]


def test_a_run_that_holds_its_lock(tmp_path: Path) -> None:
    """What the lock really writes is understood, and it can be taken while somebody looks."""
    run_dir = make_run(tmp_path / "run", metrics_jsonl=lines(1))
    with RunLock() as lock:
        lock.take(run_dir / "lock")
        assert status_of(run_dir).state == "running"
    assert status_of(run_dir).state == "dead"  # it has left nothing that says why it ended


def test_a_real_run(
    two_ranks: Ranks,
    corpus_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    recipe, run_dir = write_recipe(tmp_path / "tiny.yaml", corpus_file), tmp_path / "run"
    arguments = [str(recipe), f"--run_dir={run_dir}", "--evaluation.every_steps=2", "--checkpoint.every_steps=2"]
    (result, _) = two_ranks.run(train, [*arguments, "--training.steps=5", "--logging.every_steps=1"])
    assert result["status"] == 0, result["message"]
    summary = json.loads((run_dir / "summary.json").read_text())
    found = status_of(run_dir)
    assert (found.state, found.step, found.total_steps, found.eta) == ("finished", 5, 5, None)
    assert [step for step, _ in found.curve] == [1, 2, 3, 4, 5]
    assert found.validation["validation/loss"] == summary["validation_loss"]
    assert found.checkpoint == (run_dir / "checkpoints" / "latest").read_text()
    cli.main(["status", str(run_dir), "--json"])
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["state"], told["step"], told["checkpoint"]) == ("finished", 5, found.checkpoint)
    other = make_run(tmp_path / "other", metrics_jsonl=lines(1, 2), lock=record())
    cli.main(["status", str(run_dir), str(other)])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == ["run", "other"]
    assert f"{summary['validation_loss']:.4f}" in rows[0]
    assert "2 / 10, ETA 0:01:01" in rows[1]


def test_watching_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = make_run(tmp_path / "run", metrics_jsonl=lines(1), lock=record())

    def end() -> None:
        time.sleep(0.5)
        (run_dir / "summary.json").write_text("{}")
        (run_dir / "lock").write_text("")

    thread = threading.Thread(target=end)
    thread.start()
    cli.main(["status", str(run_dir), "--watch", "--every", "0.1", "--json"])
    thread.join()
    states = [json.loads(line)[0]["state"] for line in capsys.readouterr().out.splitlines()]
    assert set(states[:-1]) == {"running"}
    assert states[-1] == "finished"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda path: [path / "nowhere"], "nowhere holds no run: it has no recipe.yaml"),
        (lambda path: [path], "holds no run"),
        (lambda path: [make_run(path / "run"), "--every", "0"], "every is 0.0: it must be above 0"),
        (lambda path: [], "run_dirs"),
    ],
)
def test_refusals(
    arguments: Callable[[Path], list[Any]], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", *map(str, arguments(tmp_path))])
    assert ended.value.code == 1
    assert words in capsys.readouterr().err
