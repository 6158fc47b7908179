"""Whole runs by other signals and strategies: what they log, record, print and resume."""

import json
from pathlib import Path

import pytest

from presence_ds.trainer.callbacks.throughput import TIMINGS
from tests.trainer.conftest import ROOT, presence_train, read_metrics, read_scores

Environment = dict[str, str]
SHORT = ["--training.steps", "20", "--evaluation.every_steps", "10", "--presence.schedule.switch_fraction"]


@pytest.mark.long
def test_weights_by_the_loss_compiled_at_zero_stage_0(
    tiny_recipe: Path, tmp_path: Path, environment: Environment
) -> None:
    stage_0 = ROOT / "tests" / "trainer" / "zero0.json"
    options = ["--presence.signal", "loss", "--deepspeed", str(stage_0), "--run_dir", str(tmp_path / "run")]
    options += ["--model.compile", "aot_eager"]
    finished = presence_train(tiny_recipe, *SHORT, "0.5", *options, environment=environment, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "ZeRO-0" in finished.stdout
    assert "aot_eager" in finished.stdout
    metrics = read_metrics(tmp_path / "run")
    assert [line["step"] for line in metrics] == [5, 10, 15, 20]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[-1]["gradient_norm"] is None
    assert not any(name.startswith("si_") for name in metrics[-1])
    rows = read_scores(tmp_path / "run")
    assert {row["self_influence"] for row in rows} == {None}
    by_step = [row for row in rows if row["step"] == 1]
    assert sum(row["weight"] for row in by_step) == pytest.approx(1.0, abs=1e-6)
    assert max(by_step, key=lambda row: row["loss"]) == max(by_step, key=lambda row: row["weight"])  # direct
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stages"]["direct"]["sources"]["lines"]["mean_si"] is None


@pytest.mark.long
def test_alignment_with_a_trusted_source_resumes_to_the_bit(
    tiny_recipe: Path, tmp_path: Path, environment: Environment
) -> None:
    """Two passes with activation checkpointing; the reference and its stream are in the checkpoint.

    Resumed on ranks that torchrun has started.
    """
    options = [
        *("--presence.signal", "alignment", "--presence.strategy", "two_pass", "--presence.projection_dim", "8"),
        *("--reference.sources", "[lines]", "--reference.every_steps", "3", "--model.activation_checkpointing", "true"),
        *("--presence.near_duplicates", "0.99", "--presence.schedule.kind", "cosine", "--checkpoint.every_steps", "10"),
    ]
    options += ["--training.steps", "20", "--evaluation.every_steps", "10", "--presence.schedule.switch_fraction=null"]
    runs = [tmp_path / "whole", tmp_path / "resumed"]
    whole = presence_train(tiny_recipe, *options, "--run_dir", runs[0], environment=environment, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert "two_pass, alignment" in whole.stdout
    checkpoint = ["--checkpoint.resume", str(runs[0] / "checkpoints" / "step_00000010")]
    resumed = presence_train(
        tiny_recipe, *options, *checkpoint, "--run_dir", runs[1], environment=environment, cwd=tmp_path, torchrun=True
    )
    assert resumed.returncode == 0, resumed.stderr
    lines = [
        [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(run)[-2:]]
        for run in runs
    ]
    assert [line["step"] for line in lines[0]] == [15, 20]
    assert lines[1] == lines[0]
    assert 0.0 <= lines[0][0]["near_duplicate_share"] <= 1.0
    assert -1.0 < lines[0][0]["tau"] < 1.0
