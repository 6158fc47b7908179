"""Runs that are stopped: all ranks after the same step, with a checkpoint from which they go on to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from presence_ds.errors import ConfigError, Stopped
from presence_ds.trainer.callbacks.throughput import TIMINGS
from presence_ds.trainer.checkpoint.manifest import complete_checkpoints
from presence_ds.trainer.ranks.process_group import Ranks as TrainerRanks
from presence_ds.trainer.ranks.stop_config import StopConfig
from presence_ds.trainer.ranks.stop_signals import StopSignals
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import read_metrics, read_scores

SHORT = ["--training.steps", "12", "--evaluation.every_steps", "6", "--checkpoint.every_steps", "100"]
SHORT += ["--logging.every_steps", "2"]


def arguments(recipe: Path, run_dir: Path, *more: str) -> list[str]:
    return [str(recipe), "--run_dir", str(run_dir), *SHORT, *more]


def untimed(run_dir: Path) -> list[dict[str, object]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(run_dir)]


def test_a_stopped_run_goes_on_to_the_bit(two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    """Stopped by a signal to rank 1 alone, then by the stop file, then by the last step: as never stopped.

    With checkpoints that are written in the background, one of which may be under way when the run is stopped.
    """
    whole = two_ranks.run(pool_runs.train, arguments(tiny_recipe, tmp_path / "whole"))
    run_dir = tmp_path / "run"
    options = arguments(tiny_recipe, run_dir, "--checkpoint.asynchronous", "true", "--checkpoint.every_steps", "4")
    stops = [
        [("early_signal", 5, 1, "SIGUSR2"), ("signal", 5, 1, "SIGTERM")],
        [("touch", 8, 0, str(run_dir / "stop"))],  # when its last backward is through: obeyed after the next step
        [("signal", 11, 0, "SIGTERM")],
    ]
    found = []
    for incidents in stops:
        parts = two_ranks.run(pool_runs.train, options, *incidents)
        assert parts[0]["message"] == parts[1]["message"]
        found.append([part["status"] for part in parts])
        if parts[0]["status"]:
            stopped = json.loads((run_dir / "stopped.json").read_text())
            newest = complete_checkpoints(run_dir / "checkpoints")[-1].name
            found[-1] += [stopped["reason"], stopped["step"], newest]
            assert not (run_dir / "summary.json").exists()
            (run_dir / "stop").unlink(missing_ok=True)
    assert found == [[75, 75, "signal", 5, "step_00000005"], [75, 75, "stop_file", 9, "step_00000009"], [0, 0]]
    assert not (run_dir / "stopped.json").exists()
    assert untimed(run_dir) == untimed(tmp_path / "whole")
    assert read_scores(run_dir) == read_scores(tmp_path / "whole")
    for ours, theirs in zip(parts[0]["parameters"], whole[0]["parameters"], strict=True):
        assert torch.equal(ours, theirs)


def test_stopped_before_the_first_step(two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    """A stop file that lies there holds the run back until it is deleted; spent time ends the preparation."""
    run_dir = tmp_path / "run"
    ended = two_ranks.run(pool_runs.train, arguments(tiny_recipe, run_dir, "--stop.wall_clock", "0.001"))
    assert [(rank["status"], rank["message"][:26]) for rank in ended] == [(75, "stopped by stop.wall_clock")] * 2
    assert not list(run_dir.glob(".corpus*"))
    held = run_dir / "hold"
    run_dir.mkdir(exist_ok=True)
    (run_dir / "recipe.yaml").touch()
    held.touch()
    ended = two_ranks.run(pool_runs.train, arguments(tiny_recipe, run_dir, "--stop.stop_file", "hold"))
    assert [rank["status"] for rank in ended] == [75, 75]
    assert f"{held} (delete it to go on)" in ended[0]["message"]
    assert not (run_dir / "metrics.jsonl").read_text()


def test_a_signal_in_the_set_up_ends_it_at_once(one_rank: Ranks) -> None:
    assert one_rank.run(interrupted_set_up) == [["left alone"]]


def interrupted_set_up() -> list[str]:
    found = []
    with StopSignals(StopConfig(signals=["SIGUSR1"])) as signals:
        ranks = TrainerRanks(signals)
        with suppress(Stopped), ranks.agreement():
            os.kill(os.getpid(), signal.SIGUSR1)
            found.append("too late")
        with suppress(Stopped), ranks.agreement():
            found.append("although there was a signal before")
        ranks.set_up()
        with ranks.agreement():
            os.kill(os.getpid(), signal.SIGUSR1)
            found.append("left alone")
    return found


def test_forms_of_the_wall_clock() -> None:
    forms = {"23:30:00": 84600, "1-00:00:10": 86410, "0:00:01": 1, 90: 90, 1.5: 1.5, None: None}
    assert {text: StopConfig(wall_clock=text).wall_clock_seconds for text in forms} == forms


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (StopConfig(signals=["SIGKILL"]), "stop.signals has SIGKILL: it must be names"),
        (StopConfig(signals=["TERM"]), "stop.signals has TERM"),
        (StopConfig(wall_clock="soon"), "stop.wall_clock is soon: it must be seconds"),
        (StopConfig(wall_clock=0.0), "stop.wall_clock is 0.0"),
    ],
)
def test_values_that_cannot_be_used(config: StopConfig, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config.validate("stop")
    assert message in str(raised.value)


@pytest.mark.long
def test_sigterm_to_every_process_of_a_job(tiny_recipe: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """The launcher's own processes get it too, several times, also while the checkpoint is written."""
    run_dir = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "presence_ds",
        "train",
        *arguments(tiny_recipe, run_dir),
        "--training.steps",
        "5000",
    ]
    job = subprocess.Popen(
        [*command, "--num_processes", "2"],
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while job.poll() is None and not ((run_dir / "metrics.jsonl").is_file() and read_metrics(run_dir)):
        time.sleep(0.05)
    while job.poll() is None:
        os.killpg(job.pid, signal.SIGTERM)
        time.sleep(0.2)
    assert job.stderr is not None
    errors = job.stderr.read()
    assert job.wait() == 75, errors
    stopped = json.loads((run_dir / "stopped.json").read_text())
    assert [path.name for path in complete_checkpoints(run_dir / "checkpoints")] == [f"step_{stopped['step']:08d}"]
    assert errors.count("presence: stopped by SIGTERM after step") == 1
    assert "Traceback" not in errors
