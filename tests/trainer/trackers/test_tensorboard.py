"""The event files after two starts, as TensorBoard itself reads them."""

import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.sections import (
    LOWEST_LOSS,
    RELATIVE_WEIGHT,
    SAMPLE_LOSS,
    SAMPLES,
    SELF_INFLUENCE,
    sectioned,
)
from presence_ds.trainer.trackers.tensorboard import TensorBoard
from presence_ds.trainer.trackers.tensorboard_config import TensorboardConfig
from presence_ds.trainer.trackers.tracker import Line
from tests.trainer.trackers.conftest import ALL_STEPS, STOPPED, Tracked


@pytest.fixture(scope="module")
def events(tracked: Tracked) -> EventAccumulator:
    return EventAccumulator(
        str(tracked.run_dir / "tensorboard"), size_guidance={"tensors": 0, "histograms": 0}
    ).Reload()


def test_every_number_once(tracked: Tracked, events: EventAccumulator) -> None:
    lines = [sectioned(line) for line in tracked.metrics]
    numbers = {name for line in lines for name, value in line.items() if isinstance(value, (int, float))}
    assert set(events.Tags()["scalars"]) == numbers | {LOWEST_LOSS}
    for name in numbers:
        expected = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_histograms(tracked: Tracked, events: EventAccumulator) -> None:
    for name in (SAMPLE_LOSS, RELATIVE_WEIGHT, SELF_INFLUENCE):
        found = events.Histograms(name)
        assert [event.step for event in found] == list(range(1, ALL_STEPS + 1))
        for event, line in zip(found, tracked.history, strict=True):
            assert sum(event.histogram_value.bucket) == sum(line[name]["values"])
            assert event.histogram_value.max == line[name]["bins"][-1]


def test_tables_without_text(events: EventAccumulator) -> None:
    """``tensorboard.sample_text`` is false, while wandb has the text."""
    found = events.Tensors(f"{SAMPLES}/text_summary")
    assert [event.step for event in found] == [3, 6]
    for event in found:
        text = event.tensor_proto.string_val[0].decode()
        assert text.count("document ` d") + text.count("source ` shuffled") >= 8
        assert "world" not in text


def test_a_start_goes_on_where_the_checkpoint_is(tracked: Tracked) -> None:
    """What was written before it stays as it was, with its times; what came after it is cut off."""
    first, second = sorted((tracked.run_dir / "tensorboard").glob("events.*"))
    before = (tracked.first_start / "tensorboard" / first.name).read_bytes()
    left = first.read_bytes()
    assert before.startswith(left)
    assert len(left) < len(before)
    for file, steps in ((first, range(1, STOPPED + 1)), (second, range(STOPPED + 1, ALL_STEPS + 1))):
        found = EventAccumulator(str(file)).Reload()
        assert [event.step for event in found.Scalars("train/loss")] == list(steps)


def test_what_a_crash_leaves_is_cut_off(tmp_path: Path) -> None:
    """Half an event, and one that was logged but is not in the file, are logged again."""
    directory = RunDirectory(tmp_path)

    def start(first_step: int, *steps: int) -> int | None:
        board = TensorBoard(TensorboardConfig(enabled=True), directory)
        last = board.start({"training": {"steps": 9}}, first_step)
        for step in steps:
            board.log(Line(step, {"train/loss": 1.0 / step}, {}, None))
        board.finish()
        return last

    assert start(1, 1, 2, 3, 4) == 0
    (file,) = directory.tensorboard.iterdir()
    os.truncate(file, file.stat().st_size - 5)
    assert start(5, 4, 5, 6) == 3
    assert start(7) == 6
    assert start(6, 6) == 5
    for file in directory.tensorboard.iterdir():
        with open(file, "ab") as opened:
            opened.write(bytes(100))
    assert start(7, 7) == 6
    events = EventAccumulator(str(directory.tensorboard)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 8))
