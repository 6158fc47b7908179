"""The quickstart on two ranks through the real DeepSpeed launcher."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from presence_ds.trainer.checkpoint.manifest import complete_checkpoints
from tests.trainer.conftest import ROOT, presence_train, read_metrics, read_scores

Environment = dict[str, str]


@pytest.fixture(scope="module")
def quickstart(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The shipped quickstart at 6 steps, wandb on: its run directory and what it printed."""
    work = tmp_path_factory.mktemp("quickstart")
    overrides = ["--training.steps", "6", "--lr_schedule.warmup_steps", "2", "--logging.every_steps", "2"]
    overrides += ["--evaluation.max_batches", "2", "--wandb.enabled", "true"]
    recipe = ROOT / "recipes" / "quickstart.yaml"
    finished = presence_train(recipe, *overrides, environment=environment, cwd=work)
    assert finished.returncode == 0, finished.stderr
    (run_dir,) = (work / "runs").iterdir()
    return run_dir, finished.stdout


def test_quickstart_leaves_a_complete_run_directory(quickstart: tuple[Path, str]) -> None:
    run_dir, _ = quickstart
    assert run_dir.name.startswith("quickstart-")
    metrics = read_metrics(run_dir)
    assert [line["step"] for line in metrics] == [2, 4, 6]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[-1]["tokens"] == 6 * 2 * 16 * 128
    assert [checkpoint.name for checkpoint in complete_checkpoints(run_dir / "checkpoints")] == ["step_00000006"]
    assert json.loads((run_dir / "deepspeed.json").read_text())["train_batch_size"] == 32
    assert len(list((run_dir / "wandb").glob("offline-run-*/*.wandb"))) == 1


def test_quickstart_summary_is_what_the_score_records_say(quickstart: tuple[Path, str]) -> None:
    """Mean weight (w·N) and mean self-influence of each source and stage, recomputed from every sample."""
    run_dir, printed = quickstart
    summary = json.loads((run_dir / "summary.json").read_text())
    samples = defaultdict(list)
    for row in read_scores(run_dir):
        samples["constant", row["source"]].append(row)
    assert {source for _, source in samples} == {"prose", "code", "shuffled", "permuted"}
    for (stage, source), rows in samples.items():
        found = summary["stages"][stage]["sources"][source]
        assert found["samples"] == len(rows)
        assert found["mean_weight"] == pytest.approx(sum(row["weight"] * 32 for row in rows) / len(rows), rel=1e-5)
        assert found["mean_si"] == pytest.approx(sum(row["self_influence"] for row in rows) / len(rows), rel=1e-5)
        assert f"{found['mean_weight']:.4f}" in printed
    assert summary["validation_loss"] == read_metrics(run_dir)[-1]["validation/loss"]
    assert f"{summary['validation_loss']:.4f}" in printed
    assert str(run_dir) in printed


def test_weights_of_every_step_sum_to_one_over_both_ranks(quickstart: tuple[Path, str]) -> None:
    sums: dict[object, float] = defaultdict(float)
    rows = read_scores(quickstart[0])
    for row in rows:
        sums[row["step"]] += row["weight"]
    assert {row["rank"] for row in rows} == {0, 1}
    assert len(rows) == 6 * 32
    assert len({(row["step"], row["rank"], row["micro_step"], row["position"]) for row in rows}) == len(rows)
    assert all(total == pytest.approx(1.0, abs=1e-6) for total in sums.values())
    assert all(row["document_id"] for row in rows)
    assert all(row["has_targets"] for row in rows)


def test_what_rank_0_shows(quickstart: tuple[Path, str]) -> None:
    printed = quickstart[1]
    for expected in ("5,004,032 parameters", "ZeRO-2", "one_pass", "4,096 (16 samples", "ETA", "left out of SI"):
        assert printed.count(expected) >= 1, expected
    assert printed.count("step 4/6") == 1


def test_sources_and_weights_are_told_in_words(quickstart: tuple[Path, str]) -> None:
    """Six steps tell nothing yet, and say so."""
    run_dir, printed = quickstart
    worth = json.loads((run_dir / "summary.json").read_text())["worth"]
    assert {source["verdict"] for source in worth["sources"].values()} <= {"keep", "doubtful", "drop"}
    assert sum(source["share"] for source in worth["sources"].values()) == pytest.approx(1.0)
    rows = read_scores(run_dir)
    for name, source in worth["sources"].items():
        assert source["share"] == pytest.approx(sum(row["source"] == name for row in rows) / len(rows))
        assert f"{source['share']:.1%}" in printed
    assert "worth / noise" in printed
    assert bool(worth["gains"]) == ("worth in batch size" in printed) != ("cannot be told" in printed)
