"""Trackio's own database, after two starts."""

import json
import os
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.sections import RELATIVE_WEIGHT, SAMPLE_LOSS, SAMPLES, SELF_INFLUENCE, sectioned
from presence_ds.trainer.trackers.tracker import Line
from presence_ds.trainer.trackers.trackio import Trackio
from presence_ds.trainer.trackers.trackio_config import TrackioConfig
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


class Starts:
    """The starts of one run; `lines` are what it told."""

    def __init__(self, folder: Path) -> None:
        self.directory = RunDirectory(folder)
        self.project = uuid.uuid4().hex
        self.lines: list[str] = []

    def begin(self, first_step: int) -> tuple[Trackio, int | None]:
        config = TrackioConfig(enabled=True, project=self.project, name="run")
        tracker = Trackio(config, self.directory, self.lines.append)
        return tracker, tracker.start({"training": {"steps": 9}}, first_step)

    def steps(self) -> list[tuple[str, int]]:
        from trackio.fragments import import_inbox_dir

        import_inbox_dir()
        database = sqlite3.connect(Path(os.environ["TRACKIO_DIR"]) / f"{self.project}.db")
        return database.execute("select run_id, step from metrics order by step").fetchall()


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    return Starts(tmp_path)


def log(tracker: Trackio, step: int) -> None:
    tracker.log(Line(step, {"step": step, "train/loss": 1.0 / step}, {}, None))


@pytest.mark.filterwarnings("ignore:trackio failed to flush")
def test_lines_that_find_no_room_are_told(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    tracker, last = starts.begin(1)
    assert last == 0
    log(tracker, 1)
    time.sleep(1.0)  # it writes twice a second

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(SQLiteStorage, "bulk_log", full)
        log(tracker, 2)
        time.sleep(1.0)
    log(tracker, 3)
    tracker.finish()
    assert starts.lines == ["trackio: 1 of 3 lines are not in its database, maybe for want of space"]
    tracker, last = starts.begin(4)
    log(tracker, 4)
    tracker.finish()
    assert last == 3
    assert len(starts.lines) == 1
    assert [step for _, step in starts.steps()] == [1, 3, 4]


def test_one_run_where_lines_wait_beside_the_database(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    """As trackio has it on a network file system."""
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")
    for first in (1, 3):
        tracker, last = starts.begin(first)
        assert last == first - 1
        for step in (first, first + 1):
            log(tracker, step)
        tracker.finish()
    assert starts.lines == []
    found = starts.steps()
    assert [step for _, step in found] == [1, 2, 3, 4]
    assert len({run_id for run_id, _ in found}) == 1


def test_no_second_run_where_the_server_does_not_answer(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9/?write_token=secret")
    with pytest.raises(ConnectionError) as error:
        starts.begin(2)
    assert "secret" not in str(error.value)


def test_what_was_not_sent_is_not_sent_beside_what_is_logged_again(starts: Starts) -> None:
    """Of this run, while what was not sent of others stays."""
    from trackio.sqlite_storage import SQLiteStorage

    for run in ("run", "other"):
        SQLiteStorage.bulk_log(starts.project, run, [{"loss": 1.0}], steps=[1], log_ids=[run], space_id="a/b")
    tracker, _ = starts.begin(1)
    tracker.finish()
    kept = SQLiteStorage.get_pending_logs(starts.project)
    assert kept is not None
    assert [line["run"] for line in kept["logs"]] == ["other"]


def test_a_space_that_is_made_is_private(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    import trackio

    asked: dict[str, Any] = {}

    def init(**options: Any) -> Any:
        asked.update(options)
        raise ConnectionError

    monkeypatch.setattr(trackio, "init", init)
    with pytest.raises(ConnectionError):
        starts.begin(1)
    assert asked["private"] is True
