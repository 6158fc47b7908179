"""The event file after two starts, as TensorBoard itself reads them."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from presence_ds.trainer.trackers.sections import RELATIVE_WEIGHT, SAMPLE_LOSS, SAMPLES, SELF_INFLUENCE, sectioned
from tests.trainer.trackers.conftest import ALL_STEPS, Tracked


@pytest.fixture(scope="module")
def events(tracked: Tracked) -> EventAccumulator:
    return EventAccumulator(
        str(tracked.run_dir / "tensorboard"), size_guidance={"tensors": 0, "histograms": 0}
    ).Reload()


def test_every_number_once(tracked: Tracked, events: EventAccumulator) -> None:
    assert len(list((tracked.run_dir / "tensorboard").glob("events.*"))) == 1
    lines = [sectioned(line) for line in tracked.metrics]
    numbers = {name for line in lines for name, value in line.items() if isinstance(value, (int, float))}
    assert set(events.Tags()["scalars"]) == numbers
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
