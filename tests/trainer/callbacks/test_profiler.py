"""Profiles of real steps on two ranks, which change nothing of what is trained."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from presence_ds.errors import ConfigError
from presence_ds.sections import check_ranges
from presence_ds.trainer.callbacks.profiler_config import ProfilerConfig
from presence_ds.trainer.callbacks.throughput import TIMINGS
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.checkpoint.runs import shown
from tests.trainer.conftest import read_metrics, read_scores

OPTIONS = ["--training.steps", "6", "--evaluation.every_steps", "100", "--logging.every_steps", "1"]
OPTIONS += ["--checkpoint.every_steps", "100"]
PROFILER = ["--profiler.enabled", "true", "--profiler.ranks", "[1]", "--profiler.first_step", "2"]


def files(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "profile").iterdir())


def untimed(run_dir: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(run_dir)]


def test_the_steps_are_profiled_and_train_as_without(two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    """In the run's third start too, whose steps count anew."""
    plain, run_dir = tmp_path / "plain", tmp_path / "run"
    whole = two_ranks.run(pool_runs.train, [str(tiny_recipe), "--run_dir", str(plain), *OPTIONS])
    arguments = [str(tiny_recipe), "--run_dir", str(run_dir), *OPTIONS, *PROFILER, "--profiler.steps", "2"]
    stopped = two_ranks.run(pool_runs.train, arguments, ("early_signal", 2, 0, "SIGTERM"))
    assert [rank["status"] for rank in stopped] == [75, 75]
    assert not (run_dir / "profile").exists()  # it ended within the steps
    done = two_ranks.run(pool_runs.train, arguments)
    assert [rank["status"] for rank in done] == [0, 0], done[0]["message"]
    name = "rank_00001-steps_00000004-00000005"  # steps 2 and 3 of this start
    assert files(run_dir) == [f"{name}.operators.txt", f"{name}.trace.json.gz"]
    with gzip.open(run_dir / "profile" / f"{name}.trace.json.gz", "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert len(steps) == 2
    assert "aten::mm" in {event["name"] for event in events}
    table = (run_dir / "profile" / f"{name}.operators.txt").read_text()
    assert "Self CPU" in table
    assert 20 < len(table.splitlines()) < 50

    assert untimed(run_dir) == untimed(plain)
    assert read_scores(run_dir) == read_scores(plain)
    for ours, theirs in zip(done[1]["parameters"], whole[1]["parameters"], strict=True):
        assert torch.equal(ours, theirs)


def test_steps_that_a_start_has_no_longer_are_said(one_rank: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    arguments = [str(tiny_recipe), "--run_dir", str(run_dir), *OPTIONS]
    one_rank.run(pool_runs.train, arguments, ("early_signal", 3, 0, "SIGTERM"))
    profiled = [*PROFILER, "--profiler.ranks", "[0]", "--profiler.steps", "3"]
    ((status, said),) = one_rank.run(train_aloud, [*arguments, *profiled])
    assert status == 0
    assert not (run_dir / "profile").exists()
    assert "rank 0 profiles nothing: profiler.first_step and profiler.steps come to step 4" in said


def train_aloud(arguments: list[str]) -> tuple[int, str]:
    with shown() as said:
        return pool_runs.train(arguments)["status"], said()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"steps": 0}, "profiler.steps is 0: it must be at least 1"),
        ({"first_step": 1}, "profiler.first_step is 1: it must be at least 2"),
        ({"ranks": []}, "profiler.ranks is []: it must be one rank or several"),
        ({"ranks": [1, -1]}, "profiler.ranks is [1, -1]"),
        ({"ranks": [1, 1]}, "profiler.ranks is [1, 1]"),
        ({"ranks": [2]}, "profiler.ranks is [2]: the last of 2 ranks is 1"),
        (
            {"first_step": 8, "steps": 4},
            "profiler.first_step is 8 with profiler.steps 4, up to step 11: that must be at most training.steps (10)",
        ),
    ],
)
def test_values_that_cannot_be_used(section: dict[str, Any], message: str) -> None:
    def check(config: ProfilerConfig) -> None:
        check_ranges(config, "profiler")
        config.validate("profiler", training_steps=10)
        config.check_ranks(2)

    with pytest.raises(ConfigError) as raised:
        check(ProfilerConfig(**{"enabled": True, "first_step": 5} | section))
    assert str(raised.value).startswith(message)
    check(ProfilerConfig(ranks=[7]))  # it is off
