"""Trackio's own database, after two starts."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.trackers.sections import RELATIVE_WEIGHT, SAMPLE_LOSS, SAMPLES, SELF_INFLUENCE, sectioned
from tests.trainer.conftest import read_metrics
from tests.trainer.trackers.conftest import ALL_STEPS, STEPS, Tracked


@pytest.fixture(scope="module")
def lines(tracked: Tracked) -> list[dict[str, Any]]:
    database = sqlite3.connect(Path(os.environ["TRACKIO_DIR"]) / "presence-ds.db")
    found = database.execute(
        "select run_id, step, metrics from metrics where run_name = ? order by id", (tracked.trackio_name,)
    )
    rows = [(run_id, step, json.loads(metrics)) for run_id, step, metrics in found]
    assert len({run_id for run_id, _, _ in rows}) == 1
    assert [step for _, step, _ in rows] == list(range(1, ALL_STEPS + 1))
    return [line for _, _, line in rows]


def test_every_step_once_as_it_was_first(tracked: Tracked, lines: list[dict[str, Any]]) -> None:
    """It takes nothing back: the steps that were trained again are those of the first start."""
    expected = [*read_metrics(tracked.first_start), *tracked.metrics[STEPS:]]
    for line, metrics in zip(lines, expected, strict=True):
        numbers = {name: value for name, value in sectioned(metrics).items() if value is not None and name != "step"}
        assert {name: line[name] for name in numbers} == numbers


def test_histograms_and_tables(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        assert {line[name]["_type"] for name in (SAMPLE_LOSS, RELATIVE_WEIGHT, SELF_INFLUENCE)} == {"trackio.histogram"}
    assert [number for number, line in enumerate(lines, 1) if SAMPLES in line] == [4, 8]
    text = json.dumps(lines[3][SAMPLES])
    assert "world" in text
