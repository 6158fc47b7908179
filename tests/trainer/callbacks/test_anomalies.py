"""Steps that go wrong in real runs on two ranks: what is counted, what a resume keeps, and what ends the run."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from presence_ds.errors import ConfigError
from presence_ds.sections import check_ranges
from presence_ds.trainer.callbacks.anomalies_config import AnomaliesConfig, Limit
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.spikes import Spikes
from presence_ds.trainer.checkpoint.manifest import complete_checkpoints
from presence_ds.trainer.trainer import Trainer
from presence_ds.trainer.transfer.host_copy import HostCopy
from tests.engine.precision import fp16_on_any_processor
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import ROOT, read_metrics

OPTIONS = ["--evaluation.every_steps", "100", "--logging.every_steps", "1", "--anomalies.warmup_steps", "3"]
COUNTS = ("nonfinite_steps", "skipped_steps", "loss_spikes", "gradient_spikes")


def arguments(recipe: Path, run_dir: Path, *more: str) -> list[str]:
    return [str(recipe), "--run_dir", str(run_dir), *OPTIONS, *more]


def counts(run_dir: Path) -> list[tuple[Any, ...]]:
    return [tuple(line[name] for name in COUNTS) for line in read_metrics(run_dir)]


def metric(step: int, **values: float) -> tuple[Any, ...]:
    return "metric", step, None, values


def test_spikes_are_counted_kept_over_a_resume_and_end_the_run_at_the_limit(
    two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path
) -> None:
    """A spike at the limit ends all ranks with 76; a checkpoint due in a spike is put off and so never written."""
    run_dir = tmp_path / "run"
    options = [*("--training.steps", "12", "--checkpoint.every_steps", "4", "--checkpoint.keep", "1")]
    options += ["--anomalies.loss_spikes", "{consecutive: 3, in_window: 4}", "--anomalies.window_steps", "8"]
    options += ["--anomalies.nonfinite_steps.in_window", "8", "--anomalies.skipped_steps.in_window", "8"]
    incidents = [metric(4, loss=50.0), metric(6, nonfinite_samples=1), ("signal", 5, 1, "SIGUSR1")]
    first = two_ranks.run(pool_runs.train, arguments(tiny_recipe, run_dir, *options), *incidents)
    assert [rank["status"] for rank in first] == [75, 75], first[0]["message"]
    assert counts(run_dir)[2:] == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 0, 1, 0), (1, 0, 1, 0)]
    assert [path.name for path in complete_checkpoints(run_dir / "checkpoints")] == ["step_00000006"]  # not of step 4
    incidents = [metric(step, loss=500.0) for step in (8, 9, 11)]
    second = two_ranks.run(pool_runs.train, arguments(tiny_recipe, run_dir, *options), *incidents)
    assert [rank["status"] for rank in second] == [76, 76]
    assert counts(run_dir)[6:] == [(1, 0, 1, 0), (1, 0, 2, 0), (1, 0, 3, 0), (1, 0, 3, 0), (1, 0, 4, 0)]
    assert second[0]["message"].startswith(
        "stopped after step 11: the mean loss rose far above its running mean, in 4 of"
    )
    assert "the limit anomalies.loss_spikes.in_window: go on from a checkpoint before" in second[1]["message"]
    stopped = json.loads((run_dir / "stopped.json").read_text())
    assert [stopped[name] for name in ("reason", "status", "step")] == ["anomaly", 76, 11]
    newest = [path.name for path in complete_checkpoints(run_dir / "checkpoints")]
    assert newest == ["step_00000010"]  # that of step 8 was put off until the spikes had passed
    third = two_ranks.run(pool_runs.train, arguments(tiny_recipe, run_dir, *options))
    assert [rank["status"] for rank in third] == [0, 0]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["anomalies"] == dict(zip(COUNTS, (1, 0, 3, 0), strict=True))


def train_in_fp16(*args: Any) -> dict[str, Any]:
    with fp16_on_any_processor():
        return pool_runs.train(*args)


def test_fp16_may_skip_until_it_has_found_its_loss_scale_but_not_later(
    two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path
) -> None:
    section = json.loads((ROOT / "ds_configs" / "zero2.json").read_text())
    section["fp16"] = {"initial_scale_power": 28, "hysteresis": 1}
    (tmp_path / "zero2.json").write_text(json.dumps(section))
    options = ["--training.precision", "fp16", "--deepspeed", str(tmp_path / "zero2.json"), "--training.steps", "40"]
    options += ["--anomalies.skipped_steps.consecutive", "3", "--training.gradient_accumulation_steps", "1"]
    too_large = ("loss_scale", 28, None, 2.0**40)
    ended = two_ranks.run(train_in_fp16, arguments(tiny_recipe, tmp_path / "run", *options), too_large)
    assert [rank["status"] for rank in ended] == [76, 76]
    assert "a gradient was not finite or no sample had a target, in 3 consecutive steps" in ended[0]["message"]
    skipped = [line["skipped_steps"] for line in read_metrics(tmp_path / "run")]
    assert skipped[:4] == [1, 2, 3, 4]  # beyond the limit, yet healthy
    assert skipped[28:] == [skipped[27] + 1, skipped[27] + 2, skipped[27] + 3]


@pytest.mark.parametrize(
    ("step", "logged_every", "saved_every", "stopped_after"),
    [(2, 1, 1, 2), (2, 100, 3, 3), (3, 100, 3, 3), (4, 100, 3, 4)],
    ids=["logged", "looked at with the next", "due to be saved", "the last"],
)
def test_a_model_that_was_updated_with_no_finite_gradient_is_not_saved(
    two_ranks: Ranks,
    tiny_recipe: Path,
    tmp_path: Path,
    step: int,
    logged_every: int,
    saved_every: int,
    stopped_after: int,
) -> None:
    """The checkpoint of the step before, which is still on its way to the disk, is completed."""
    options = ["--training.steps", "4", "--checkpoint.asynchronous", "true"]
    options += ["--logging.every_steps", str(logged_every), "--checkpoint.every_steps", str(saved_every)]
    options += ["--evaluation.every_steps", "null"]
    incident = ("gradient_norm", step, None, -1.0)
    ended = two_ranks.run(pool_runs.train, arguments(tiny_recipe, tmp_path / "run", *options), incident)
    assert [rank["status"] for rank in ended] == [76, 76]
    assert f"stopped after step {stopped_after}: in step {step} the model was updated with a" in ended[1]["message"]
    saved = [path.name for path in complete_checkpoints(tmp_path / "run" / "checkpoints")]
    assert saved == [f"step_{number:08d}" for number in range(saved_every, step, saved_every)]


def test_spikes_of_the_gradient_are_those_of_their_steps_whenever_they_are_looked_at(
    two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path
) -> None:
    options = ["--training.steps", "10", "--checkpoint.every_steps", "100", "--evaluation.every_steps", "7"]
    options += ["--anomalies.gradient_spikes", "{consecutive: 2, in_window: null}"]
    spikes = [("gradient_norm", step, None, norm) for step, norm in ((5, 1e10), (7, 1e25))]
    lines = {}
    for every in (1, 3):
        run_dir = tmp_path / str(every)
        parts = arguments(tiny_recipe, run_dir, *options, "--logging.every_steps", str(every))
        stopped = two_ranks.run(pool_runs.train, parts, *spikes, ("early_signal", 5, 0, "SIGTERM"))
        assert [rank["status"] for rank in stopped] == [75, 75]
        ended = two_ranks.run(pool_runs.train, parts, *spikes)
        assert [rank["status"] for rank in ended] == [0, 0]
        lines[every] = {line["step"]: line["gradient_spikes"] for line in read_metrics(run_dir)}
    assert lines[1] == dict(enumerate([0, 0, 0, 0, 1, 1, 2, 2, 2, 2], start=1))
    assert lines[3] == {step: lines[1][step] for step in (3, 6, 7, 9, 10)}
    in_a_row = [*spikes, ("gradient_norm", 8, None, 1e38)]
    options += ["--logging.every_steps", "100"]
    ended = two_ranks.run(pool_runs.train, arguments(tiny_recipe, tmp_path / "over", *options), *in_a_row)
    assert [rank["status"] for rank in ended] == [76, 76]
    assert ended[0]["message"].startswith("stopped after step 9: the gradient norm rose")


def test_a_norm_is_asked_for_when_it_has_arrived(two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    """With the next step, or at once where the step is logged or saved."""
    options = ["--training.steps", "8", "--logging.every_steps", "4", "--checkpoint.every_steps", "6"]
    looks = two_ranks.run(watched, arguments(tiny_recipe, tmp_path / "run", *options))
    assert looks[0] == looks[1] == {1: 2, 2: 3, 3: 4, 4: 4, 5: 6, 6: 6, 7: 8, 8: 8}


def watched(arguments: list[str]) -> dict[int, int]:
    """Of every step, the one in which its gradient norm was first asked for."""
    looks: dict[int, int] = {}

    class Watched(HostCopy):
        def __init__(self, trainer: Trainer, copy: HostCopy) -> None:
            self._step, self._trainer, self._copy = trainer.step, trainer, copy

        @property
        def values(self) -> torch.Tensor:
            looks.setdefault(self._step, self._trainer.step)
            return self._copy.values

    class Watch(Callback):
        def on_step(self, trainer: Trainer, metrics: Any) -> None:
            assert trainer.gradient_norm is not None
            trainer.gradient_norm = Watched(trainer, trainer.gradient_norm)

    pool_runs.train(arguments, first={"watch": Watch()})
    return looks


def test_spikes_stand_out_and_a_new_level_does_not_for_long() -> None:
    rng = random.Random(0)
    spikes = Spikes(deviations=6.0, averaging_steps=100, warmup_steps=50)
    falling = [10.0 * 0.99**step + rng.gauss(2.0, 0.05) for step in range(1000)]
    assert not any(map(spikes.is_spike, falling))
    assert [spikes.is_spike(value) for value in (3.0, 2.0, float("nan"), None, 9.0)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert not any(spikes.is_spike(rng.gauss(2.0, 0.05)) for _ in range(100))
    assert spikes.is_spike(2.8)  # two spikes have not widened what counts as ordinary
    again = Spikes(6.0, 100, 50)
    again.load_state_dict(spikes.state_dict())
    level = [rng.gauss(3.0, 0.05) for _ in range(200)]
    found = [spikes.is_spike(value) for value in level]
    assert found == [again.is_spike(value) for value in level]
    assert found[0]
    assert not any(found[60:])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AnomaliesConfig(window_steps=0), "anomalies.window_steps is 0: it must be at least 1"),
        (AnomaliesConfig(spike_deviations=0.0), "anomalies.spike_deviations is 0.0: it must be above 0"),
        (AnomaliesConfig(loss_spikes=Limit(consecutive=0)), "anomalies.loss_spikes.consecutive is 0: it must be at"),
    ],
)
def test_values_that_cannot_be_used(config: AnomaliesConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_ranges(config, "anomalies")


def test_a_limit_that_the_window_has_no_room_for_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"anomalies\.nonfinite_steps\.in_window is 100: it must be at most .* \(50\)"
    ):
        AnomaliesConfig(window_steps=50).validate("anomalies")
