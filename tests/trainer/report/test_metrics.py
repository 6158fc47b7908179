"""Metrics of any shape → figures."""

import json
import math
from pathlib import Path

import pytest

from presence_ds.trainer.report.curves import CURVE_BINS, mean_curve
from presence_ds.trainer.report.metrics import read_metrics
from tests.trainer.report.runs import write_metrics


def test_lines_as_they_are(tmp_path: Path) -> None:
    """The step that is written again after a resume counts once; what is no line with a step is passed over."""
    lines = [
        {"step": 1, "tokens": 10, "loss": 5.0, "stage": "direct", "source/a b/loss": 4.0, "source/a b/verdict": "keep"},
        "no json\n",
        {"steps": 7},
        {"step": 2, "tokens": 20, "loss": 9.0},
        {"step": 2, "tokens": 20, "loss": 4.0, 'a "key" of others': [1, {"x": None}]},
        {"step": 3, "tokens": 30, "loss": None, "stage": "inverse"},
        {"step": 4, "tokens": 40, "loss": 3.0, "validation/loss": 3.5, "validation/a/b/loss": 3.25},
        '{"step": 5, "tokens": 50, "lo',
    ]
    folder = tmp_path / "run [1]*?'\""
    figures = read_metrics(write_metrics(folder, lines))
    assert figures.missing == []
    assert (figures.step, figures.tokens) == (4, 40)
    assert figures.curves["loss"].step == [1, 2, 4]
    assert figures.curves["loss"].mean == [5.0, 4.0, 3.0]
    assert figures.curves["loss"].tokens == [10, 20, 40]
    assert figures.curves["source/a b/loss"].mean == [4.0]
    assert {name: curve.mean for name, curve in figures.validation.items()} == {"": [3.5], "a/b": [3.25]}
    assert [(event.step, event.kind) for event in figures.events] == [(3, "stage")]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (None, "has no metrics.jsonl"),
        ([], "is empty"),
        (['{"step": 1, "loss'], "no whole line with a step"),
        ([{"loss": 1.0}], "no whole line with a step"),
        (["\x00\xff\x00\n" * 100], "no whole line with a step"),
        ([{"step": 10**30, "loss": 1.0}], "no step"),
        ([{"step": 1, "other": 1.0}], "no line of metrics.jsonl has a loss"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, lines: list[dict[str, object] | str] | None, told: str) -> None:
    path = tmp_path / "metrics.jsonl" if lines is None else write_metrics(tmp_path, lines)
    (sentence,) = read_metrics(path).missing
    assert told in sentence


def test_bins(tmp_path: Path) -> None:
    """A long run in a few hundred bins, with the range of each."""
    path = write_metrics(tmp_path, ({"step": step, "tokens": step, "loss": step % 10} for step in range(1, 4001)))
    curve = read_metrics(path).curves["loss"]
    assert CURVE_BINS / 2 <= len(curve.step) <= CURVE_BINS
    assert curve.step == [*range(16, 4000, 16), 4000] == curve.tokens
    assert curve.mean[0] == pytest.approx(sum(step % 10 for step in range(1, 17)) / 16)
    assert set(curve.low) == {0.0}
    assert set(curve.high) == {9.0}


def test_a_run_in_progress_has_bins_of_the_finished_one(tmp_path: Path) -> None:
    """So that there is a mean over both, until the step that the slower one has come to."""
    curves = []
    for steps in (4000, 2500):
        lines = ({"step": step, "loss": float(steps)} for step in range(10, steps + 1, 10))
        curves.append(read_metrics(write_metrics(tmp_path / str(steps), lines)).curves["loss"])
    mean = mean_curve(curves)
    assert len(mean.step) > 100
    assert mean.step[-1] > 2400
    assert set(mean.mean) == {3250.0}
    assert (mean.low[0], mean.high[0]) == (2500.0, 4000.0)


def test_a_figure_that_is_rare_has_its_own_step(tmp_path: Path) -> None:
    lines = (
        {"step": step, "loss": 1.0, **({"validation/loss": 2.0} if step % 1000 == 0 else {})} for step in range(1, 5001)
    )
    figures = read_metrics(write_metrics(tmp_path, lines))
    assert figures.validation[""].step == [1000, 2000, 3000, 4000, 5000]


def test_a_bin_of_validation_has_its_last(tmp_path: Path) -> None:
    lines = ({"step": step, "loss": 1.0, "validation/loss": float(step)} for step in range(1, 4001))
    figures = read_metrics(write_metrics(tmp_path, lines))
    assert figures.validation[""].mean[-1] == 4000.0


def test_events_and_cost(tmp_path: Path) -> None:
    lines = [
        {
            **{"step": step, "tokens": 100 * step, "loss": 1.0, "throughput(tokens/s)": 50.0, "step_time(s)": 2.0},
            **{"skipped_steps": 3 * (step >= 40), "loss_spikes": step // 90, "samples": 8, "nonfinite_samples": 1},
            **{"memory/peak(GiB)": 2.0 if step < 60 else 1.5, "eta(s)": 2.5 * (100 - step), "effective_sample_size": 4},
        }
        for step in range(10, 101, 10)
    ]
    figures = read_metrics(write_metrics(tmp_path, lines), 100)
    assert [(event.step, event.kind) for event in figures.events] == [
        (40, "skipped_steps"),
        (60, "resume"),
        (90, "loss_spikes"),
    ]
    assert "3 steps were skipped of the 10" in figures.events[0].words
    assert figures.counts == {"skipped_steps": 3, "loss_spikes": 1, "nonfinite_samples": 10}
    cost = figures.cost
    assert (cost.tokens_per_second, cost.step_seconds, cost.peak_memory_gib) == (50.0, 2.0, 2.0)
    assert cost.hours == pytest.approx(200 / 3600, rel=1e-4)
    assert cost.outside_share == pytest.approx(0.2)  # 2.5 seconds a step, of which 2 inside
    assert figures.effective_share == 0.5
    assert figures.samples_per_step == 8


def test_hours_as_they_are_logged(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 1.0, "step_time(s)": 2.7, "hours": step / 1200} for step in range(10, 101, 10)]
    figures = read_metrics(write_metrics(tmp_path, lines))
    assert figures.hours == pytest.approx(100 / 1200, rel=1e-4)
    assert figures.cost.outside_share == pytest.approx(0.1)  # 3 seconds a step, of which 2.7 inside
    assert figures.curves["loss"].hours[0] == pytest.approx(10 / 1200, rel=1e-4)


def test_keys_that_differ_in_case_alone(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 1.0, "source/Web/loss": 2.0, "source/web/loss": 3.0}]
    curves = read_metrics(write_metrics(tmp_path, lines)).curves
    assert [name for name in curves if name.startswith("source/")] == ["source/Web/loss"]


def test_all_is_json(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": NaN, "tau": Infinity}\n', {"step": 2, "loss": 1.0, "tau": 1.0}]
    figures = read_metrics(write_metrics(tmp_path, lines))
    assert figures.curves["loss"].mean == [1.0]
    assert figures.curves["tau"].mean == [1.0]
    json.dumps(figures.last, allow_nan=False)
    assert all(math.isfinite(value) for curve in figures.curves.values() for value in curve.mean if value is not None)
