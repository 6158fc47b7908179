"""Whole reports: of a real run, of several, and of whatever may lie in a directory."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from presence_ds.errors import ConfigError
from presence_ds.trainer.report.figures import Report
from presence_ds.trainer.report.report import make_report
from tests.conftest import Pools
from tests.trainer.conftest import read_metrics, read_scores
from tests.trainer.conftest import write_recipe as write_training_recipe
from tests.trainer.gain.records import make_step, write_run
from tests.trainer.pool_runs import train
from tests.trainer.report.runs import write_metrics, write_recipe, write_records

Run = Callable[[Path], Any]


def lines(steps: int, loss: float = 3.0, **figures: Any) -> list[dict[str, Any]]:
    """Of metrics, the last with a validation loss."""
    last = {"validation/loss": loss}
    return [
        {"step": step, "tokens": 100 * step, "loss": loss, "samples": 24, **figures, **(last if step == steps else {})}
        for step in range(1, steps + 1)
    ]


def said(report: Report) -> str:
    return " ".join(sentence.text for sentence in report.summary)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, pools: Pools) -> Path:
    """A run of 12 steps on two ranks, with records of alignments."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_training_recipe(folder / "tiny.yaml", corpus_file)
    changed = yaml.safe_load(recipe.read_text()) | {"presence": {"preset": "calibrated"}, "logging": {"every_steps": 1}}
    recipe.write_text(yaml.safe_dump(changed))
    options = {
        "training.steps": 12,
        "evaluation.every_steps": 6,
        "checkpoint.every_steps": 6,
        "run_dir": folder / "run",
    }
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    for outcome in pools.get(2).run(train, [str(recipe), *arguments]):
        assert outcome["status"] == 0, outcome["message"]
    return folder / "run"


@pytest.fixture(scope="module")
def report(trained: Path) -> Report:
    return make_report([trained])


def test_a_run_from_end_to_end(trained: Path, report: Report) -> None:
    """What the trainer wrote is what is told of it."""
    (run,) = report.runs
    metrics, scores = read_metrics(trained), read_scores(trained)
    assert run.state == "finished"
    assert (run.step, run.total_steps) == (12, 12)
    assert run.curves["loss"].mean == pytest.approx([line["loss"] for line in metrics], rel=1e-5)
    assert run.validation[""].step == [6, 12]
    assert run.validation_loss == pytest.approx(metrics[-1]["validation/loss"])
    assert run.records == len(scores)
    assert {source.name for source in run.sources} == {row["source"] for row in scores}
    assert sum(source.share_of_update or 0.0 for source in run.sources) == pytest.approx(1.0, abs=1e-4)
    assert run.plane is not None
    assert run.worth is not None
    assert run.worth.told_by == "records"
    assert run.missing == []
    for text in ("calibrated weights", "12 steps", "validation loss at step 12"):
        assert text in said(report)


def test_steps_have_their_documents_as_text(report: Report) -> None:
    (run,) = report.runs
    samples = [sample for step in run.moved for sample in step.samples]
    assert all(sample.text for sample in samples)
    begun = [sample for sample in samples if sample.source == "lines" and sample.offset == 0]
    assert begun
    for sample in begun:
        assert (sample.text or "").startswith(sample.document_id.removeprefix("d"))


def test_a_report_is_json(report: Report) -> None:
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["runs"][0]["step"] == 12


def test_without_its_corpus(trained: Path, tmp_path: Path) -> None:
    """Copied to where the corpus is not."""
    shutil.copytree(trained, tmp_path / "copy", ignore=shutil.ignore_patterns("corpus", "checkpoints"))
    (run,) = make_report([tmp_path / "copy"]).runs
    assert run.moved
    assert all(sample.text is None for step in run.moved for sample in step.samples)
    assert any("There is no text of samples" in sentence for sentence in run.missing)


def halved(run: Path) -> None:
    write_recipe(run)
    write_metrics(run, [*lines(3), '{"step": 4, "lo'])


def with_records(run: Path) -> None:
    write_run(run, {number: make_step(number) for number in range(1, 60)})
    write_metrics(run, lines(59))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda run: run.mkdir(), "There is no recipe.yaml that can be read"),
        (lambda run: write_recipe(run), "the run has no metrics.jsonl"),
        (lambda run: write_metrics(write_recipe(run), []), "metrics.jsonl is empty"),
        (lambda run: write_metrics(write_recipe(run), [{"other": 1}]), "no whole line with a step"),
        (halved, "There are no score records"),
        (lambda run: (write_recipe(run) / "recipe.yaml").write_text("a: [}"), "There is no recipe.yaml"),
        (lambda run: (write_recipe(run) / "recipe.yaml").write_text("- 1"), "There is no recipe.yaml"),
        (lambda run: (write_recipe(run) / "recipe.yaml").write_text("presence: 3\ntraining: {steps: x}"), "no curves"),
        (lambda run: (write_recipe(run) / "metrics.jsonl").mkdir(), "the run has no metrics.jsonl"),
        (lambda run: write_metrics(write_recipe(run), lines(5)), "What weights are worth is not known"),
        (
            lambda run: write_records(write_recipe(run), [{"step": 1, "weight": 1.0}], without=("alignment",)),
            "There are no alignments in the records",
        ),
        (lambda run: (write_recipe(run) / "scores").write_text("no folder"), "There are no score records"),
        (with_records, "There is no text of samples"),
    ],
)
def test_whatever_lies_there_is_told(tmp_path: Path, make: Run, told: str) -> None:
    """A report, not an error, and it says what is missing."""
    run = tmp_path / "run"
    make(run)
    report = make_report([run])
    assert told in " ".join(report.runs[0].missing)
    assert report.summary
    json.dumps(asdict(report), allow_nan=False)


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such directory"):
        make_report([tmp_path / "nothing"])


def test_groups_and_verdicts(tmp_path: Path) -> None:
    """Two seeds of two weights; the weights help. A directory that is named twice is one run."""
    paths = []
    for kind, loss in (("uniform", 3.0), ("calibrated", 2.9)):
        for seed in (0, 1):
            run = write_recipe(tmp_path / f"{kind}-{seed}", presence={"preset": kind}, training={"seed": seed})
            write_metrics(run, lines(20, loss + 0.1 * seed))
            paths.append(run)
    report = make_report([*paths, paths[0]])
    assert [run.label for run in report.runs] == ["uniform-0", "uniform-1", "calibrated-0", "calibrated-1"]
    assert [run.group for run in report.runs] == [0, 0, 1, 1]
    assert [(one.field, one.is_seed) for one in report.configuration_differences] == [
        ("presence.preset", False),
        ("training.seed", True),
    ]
    (compared,) = report.comparisons
    assert compared.verdict == "better"
    (sentence,) = [one for one in report.summary if one.level == "good"]
    assert sentence.text.lower() == compared.words.lower()
    assert "Calibrated weights: 2 runs" in said(report)


def test_a_link_to_a_run_is_that_run(tmp_path: Path) -> None:
    run = write_recipe(tmp_path / "run")
    write_metrics(run, lines(5))
    (tmp_path / "latest").symlink_to(run)
    (told,) = make_report([tmp_path / "latest", run]).runs
    assert told.label == "latest"


def test_a_group_that_is_not_compared_is_told(tmp_path: Path) -> None:
    """The others are."""
    kinds = [("uniform", 0), ("calibrated", 0), ("clip", 1)]
    runs = [write_recipe(tmp_path / kind, presence={"preset": kind}, training={"seed": seed}) for kind, seed in kinds]
    for run in runs:
        write_metrics(run, lines(5))
    report = make_report(runs)
    assert [one.group for one in report.comparisons] == [1]
    (sentence,) = report.missing
    assert sentence.startswith("Gradients clipped")
    assert "no run of the same seeds" in sentence


def test_groups_that_cannot_be_compared(tmp_path: Path) -> None:
    runs = [write_recipe(tmp_path / kind, presence={"preset": kind}) for kind in ("uniform", "clip")]
    for run in runs:
        write_metrics(run, lines(5))
        (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().replace("validation/loss", "other"))
    assert "no run has figures of a validation split" in make_report(runs).missing[0]


def test_what_to_look_at(tmp_path: Path) -> None:
    run = write_recipe(tmp_path / "run")
    samples = {"source/bad/samples": 10, "source/good/samples": 14}
    worth = {"source/bad/worth": 0.1, "source/bad/worth_error": 0.05}
    figures = {**samples, **worth, "effective_sample_size": 2.4, "data_wait_share": 0.5, "nonfinite_steps": 2}
    metrics = lines(60, **figures)
    for step, loss in ((10, 2.0), (20, 2.1), (30, 2.2)):
        metrics[step]["validation/loss"] = loss
    metrics[40]["loss"] = 30.0
    write_metrics(run, metrics)
    text = said(make_report([run]))
    for words in (
        "source bad is not worth its noise",
        "Weights leave few samples to learn from: a mean effective sample size of 10%",
        "Steps wait for data: 50%",
        "samples that were not finite and were left out: 2, the first by step 1",
        "The validation loss has risen from its least: 2.0000 at step 11, 3.0000 at the end",
    ):
        assert words.lower() in text.lower()


def test_a_source_that_moves_more_than_its_share(tmp_path: Path) -> None:
    """Ten of twenty samples, with ten times the gradients of the others, all of one direction."""
    rows = [
        {
            **{"step": step, "source": "loud" if place < 5 else "usual", "weight": 0.05},
            **{"self_influence": 100.0 if place < 5 else 1.0, "alignment": 20.0 if place < 5 else 2.0},
        }
        for step in range(1, 41)
        for place in range(20)
    ]
    run = write_recipe(tmp_path / "run")
    write_records(run, rows)
    report = make_report([run])
    loud = next(source for source in report.runs[0].sources if source.name == "loud")
    assert loud.share_of_samples == 0.25
    assert loud.share_of_update == pytest.approx(5 * (0.05 * 100 + 0.95 * 20) / (5 * 24 + 15 * (0.05 + 1.9)), rel=1e-4)
    assert "source loud moves the model far more than its share" in said(report).lower()
