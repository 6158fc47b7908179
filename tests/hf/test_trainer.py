"""`PresenceTrainer` on two ranks: against a loop written by hand, against the plain Trainer, and through a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.combinations.covering import taking_turns
from tests.hf import training
from tests.ranks import Ranks


def same(ours: list[Any], theirs: list[Any]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("strategy", "stage"), taking_turns(["one_pass", "two_pass"], (2, 3)))
def test_the_same_to_the_bit_as_a_loop_written_by_hand(
    two_ranks: Ranks, tmp_path: Path, stage: int, strategy: str
) -> None:
    """Scores, weights, statistics, clipping and parameters; each epoch ends in a step of fewer micro-batches."""
    for found in two_ranks.run(training.beside_a_loop, str(tmp_path), stage, strategy):
        trainer, loop = found["trainer"], found["loop"]
        assert found["ends"] == [False, True, False, True, True] * 2
        assert [len(weights) for _, weights in trainer.found] == [4, 4, 2] * 2
        for ours, theirs in zip(trainer.found, loop.found, strict=True):
            assert same(ours, theirs)
        assert same(trainer.parameters, loop.parameters)
        for logged, figures in zip(trainer.logs, loop.logs, strict=False):
            assert logged | figures == logged
            assert logged["loss"] == pytest.approx(figures["presence/loss"])
        assert sum(logged.get("presence/samples_without_targets", 0) for logged in trainer.logs) > 0
        assert {"presence/si_mean", "presence/tau", "presence/source/2/mean_weight"} <= set(trainer.logs[0])


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.long), 2])
def test_uniform_weights_train_as_the_plain_trainer_does(two_ranks: Ranks, tmp_path: Path, stage: int) -> None:
    """The learning rate, the clipping and the division by micro-batches and ranks are the Trainer's."""
    for found in two_ranks.run(training.beside_plain, str(tmp_path), stage):
        plain, uniform = found["plain"], found["uniform"]
        for ours, theirs in zip(uniform.parameters, plain.parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)
        for ours, theirs in zip(uniform.logs, plain.logs, strict=True):
            for name in {"loss", "grad_norm", "learning_rate", "epoch"} & set(theirs):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.long), 3])
def test_resuming_evaluating_and_saving_are_the_trainers(two_ranks: Ranks, tmp_path: Path, stage: int) -> None:
    for found in two_ranks.run(training.resume, str(tmp_path), stage):
        whole, resumed = found["whole"], found["resumed"]
        assert same(resumed.parameters, whole.parameters)
        for ours, theirs in zip(resumed.found, whole.found[3:], strict=True):
            assert same(ours, theirs)
        logged = [[entry for entry in run.logs if "loss" in entry] for run in (resumed, whole)]
        assert logged[0] == logged[1]
        assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-5)
        assert found["saved as trained"]


def test_a_changed_configuration_is_told_or_refused(two_ranks: Ranks, tmp_path: Path) -> None:
    """With running statistics, which are in the unit of the scores; the same configuration says nothing."""
    found = two_ranks.run(training.changed, str(tmp_path))
    assert sorted(found[0]["told"]) == [
        "changed since the checkpoint: presence.near_duplicates: null -> 0.9",
        "changed since the checkpoint: presence.schedule.switch_step: 3 -> 2",
        "changed since the checkpoint: presence.schedule.tau_inverse: -1.0 -> -2.0",
    ]
    assert found[1]["told"] == []
    for rank in found:
        for name, message in rank["refused"].items():
            assert message.startswith(f"presence.{name} is ")
            assert "it cannot change with running statistics" in message
        assert len(rank["refused"]) == 2


REFUSALS = {
    "no DeepSpeed": "ConfigError: deepspeed is not set in TrainingArguments",
    "loss function": "ConfigError: compute_loss is overridden or compute_loss_func is given",
    "own compute_loss": "ConfigError: compute_loss is overridden",
    "label smoothing": "ConfigError: label_smoothing_factor is 0.1",
    "compile": "ConfigError: torch_compile is true",
    "DeepSpeed setting": "ConfigError: hybrid_engine.enabled is true",
    "field": "ConfigError: Group 'presence' does not accept option 'projecton_dim'",
    "value": "ConfigError: presence.projection_dim is 0",
    "beyond the end": "ConfigError: presence.schedule.switch_step is 7",
    "checkpointing": "ConfigError: model has activation checkpointing enabled",
}


def test_what_cannot_work_is_refused_before_the_first_step(two_ranks: Ranks, tmp_path: Path) -> None:
    for messages in two_ranks.run(training.refusals, str(tmp_path)):
        assert set(messages) == set(REFUSALS)
        for case, expected in REFUSALS.items():
            assert messages[case].startswith(expected), (case, messages[case])
            assert "\n" not in messages[case]
