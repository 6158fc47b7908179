"""The offline files of a run that was cut short, requeued and finished, read back."""

import json
from typing import Any

import pytest

from presence_ds.trainer.trackers.sections import (
    AXES,
    LOWEST_LOSS,
    RELATIVE_WEIGHT,
    SAMPLE_LOSS,
    SAMPLES,
    SECTIONS,
    SELF_INFLUENCE,
    sectioned,
)
from presence_ds.trainer.trackers.wandb_file import records
from tests.trainer.conftest import read_metrics, read_scores
from tests.trainer.trackers.conftest import ALL_STEPS, STEPS, STOPPED, Tracked, nested

HISTOGRAMS = {SAMPLE_LOSS, RELATIVE_WEIGHT, SELF_INFLUENCE}


def test_one_run_with_every_step_once(tracked: Tracked) -> None:
    run_id = (tracked.run_dir / "wandb_run_id").read_text().strip()
    (file,) = tracked.first_start.glob("wandb/offline-run-*/*.wandb")
    ids = {record.run.run_id for at in (list(records(file)), tracked.wandb) for record in at if record.HasField("run")}
    assert ids == {run_id}
    assert [line["step"] for line in tracked.history] == list(range(1, ALL_STEPS + 1))
    figures = [{name: value for name, value in line.items() if name[0] != "_"} for line in tracked.history]
    for line in figures:
        for name in (*HISTOGRAMS, SAMPLES, LOWEST_LOSS):
            line.pop(name, None)
    assert figures == [sectioned(line) for line in tracked.metrics]
    assert [line.get("system/slurm_restart_count") for line in figures] == [None] * STOPPED + [1] * (
        ALL_STEPS - STOPPED
    )
    assert not (tracked.run_dir / "wandb" / "superseded").exists()


def test_configuration_says_by_what_runs_are_grouped(tracked: Tracked) -> None:
    (run,) = (record.run for record in tracked.wandb if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["weights"] == "softmax of the zscore, τ 1 to step 3, then τ -1"
    assert config["training"]["steps"] == ALL_STEPS


def test_axes_and_summaries(tracked: Tracked) -> None:
    metrics = [record.metric for record in tracked.wandb if record.HasField("metric")]
    assert {metric.name for metric in metrics if metric.name and metric.options.hidden} == set(AXES)
    by_glob = {metric.glob_name: metric for metric in metrics if metric.glob_name}
    assert set(by_glob) == {f"{section}/*" for section in SECTIONS}
    assert {metric.step_metric for metric in by_glob.values()} == {"step"}
    summary: dict[str, Any] = {}
    for record in tracked.wandb:
        if record.HasField("summary"):
            summary |= nested(record.summary.update)
    losses = [line["validation/loss"] for line in tracked.metrics if "validation/loss" in line]
    assert (summary["validation/loss"], summary[LOWEST_LOSS]) == (losses[-1], min(losses))
    assert summary["train/loss"] == tracked.metrics[-1]["loss"]


def test_hours_count_over_both_starts(tracked: Tracked) -> None:
    hours = [line["hours"] for line in tracked.metrics]
    assert hours == sorted(hours)
    assert hours[:STOPPED] == [line["hours"] for line in read_metrics(tracked.first_start)[:STOPPED]]


def test_histograms_are_of_the_recorded_samples(tracked: Tracked) -> None:
    import numpy as np

    rows = read_scores(tracked.run_dir)
    for line in tracked.history:
        of_step = [row for row in rows if row["step"] == line["step"]]
        weights = np.array([row["weight"] for row in of_step])
        expected = {
            SAMPLE_LOSS: np.array([row["loss"] for row in of_step]),
            RELATIVE_WEIGHT: weights / weights.mean(),
            SELF_INFLUENCE: np.log10([row["self_influence"] for row in of_step]),
        }
        for name, values in expected.items():
            found = line[name]
            assert found["_type"] == "histogram"
            assert sum(found["values"]) == len(of_step)
            assert (found["bins"][0], found["bins"][-1]) == pytest.approx((values.min(), values.max()), rel=1e-5)
            middle = np.dot(found["values"], (np.array(found["bins"][1:]) + found["bins"][:-1]) / 2) / len(of_step)
            width = found["bins"][1] - found["bins"][0]
            assert abs(middle - values.mean()) <= width / 2 + 1e-6


def table_of(tracked: Tracked, line: dict[str, Any]) -> list[dict[str, Any]]:
    content = json.loads((tracked.wandb_files / line[SAMPLES]["path"]).read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_tables_of_samples(tracked: Tracked) -> None:
    """Of every second step, those of the start before too: both ends of the weights of both ranks, with their text."""
    rows, documents = read_scores(tracked.run_dir), texts(tracked)
    assert [line["step"] for line in tracked.history if SAMPLES in line] == [2, 4, 6, 8]
    for line in tracked.history[1::2]:
        records_of = {
            (row["source"], row["document_id"], row["offset"]): row for row in rows if row["step"] == line["step"]
        }
        weights = sorted(row["weight"] for row in records_of.values())
        table = table_of(tracked, line)
        mean = sum(weights) / len(weights)
        for which, ends in (("highest", weights[::-1][:8]), ("lowest", weights[:8])):
            of_end = [row["weight"] * mean for row in table if row["which"] == which]
            assert sorted(of_end) == pytest.approx(sorted(ends), rel=1e-5)
        total = sum(share(row) for row in records_of.values())
        for row in table:
            record = records_of[row["source"], row["document"], row["offset"]]
            assert [row[name] for name in ("loss", "self_influence", "alignment")] == pytest.approx(
                [record[name] for name in ("loss", "self_influence", "alignment")]
            )
            assert row["update_share"] == pytest.approx(share(record) / total, rel=1e-4)
            if row["source"] == "lines":
                assert row["text"].split("<|endoftext|>")[0].strip() in documents[row["document"]]


def share(record: dict[str, Any]) -> float:
    weight = record["weight"]
    return float(weight * (weight * record["self_influence"] + (1 - weight) * record["alignment"]))


def texts(tracked: Tracked) -> dict[str, str]:
    import yaml

    recipe = yaml.safe_load((tracked.run_dir / "recipe.yaml").read_text())
    with open(recipe["data"]["sources"][0]["path"]) as file:
        return {line["id"]: line["text"] for line in map(json.loads, file)}


def test_shares_of_the_update_by_source(tracked: Tracked) -> None:
    rows = read_scores(tracked.run_dir)
    for line in tracked.metrics:
        of_step = [row for row in rows if row["step"] == line["step"]]
        total = sum(map(share, of_step))
        for source in {row["source"] for row in of_step}:
            mine = [row for row in of_step if row["source"] == source]
            update, tokens = sum(map(share, mine)) / total, len(mine) / len(of_step)  # samples are of one length
            assert line[f"source/{source}/update_share"] == pytest.approx(update, rel=1e-4)
            assert line[f"source/{source}/token_share"] == pytest.approx(tokens)
            assert line[f"source/{source}/outsized"] == int(update > 2 * tokens)


def test_what_was_shown_of_steps_that_are_trained_again_is_gone(tracked: Tracked) -> None:
    lines = [json.loads(line) for line in (tracked.run_dir / "tracked.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, ALL_STEPS + 1))
    first = [json.loads(line) for line in (tracked.first_start / "tracked.jsonl").read_text().splitlines()]
    assert [line["step"] for line in first] == list(range(1, STEPS + 1))
    assert lines[:STOPPED] == first[:STOPPED]
