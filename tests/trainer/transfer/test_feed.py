"""Batches that are drawn while the device computes: the same run, the same state, and copies in the right order."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import torch

from presence_ds.trainer import trainer
from presence_ds.trainer.transfer import feed
from presence_ds.trainer.transfer.feed import Feed
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import WORDS, read_metrics, read_scores
from tests.trainer.test_stopping import arguments, untimed

CPU = torch.device("cpu")


def train_ahead(options: list[str], *incidents: tuple[Any, ...]) -> dict[str, Any]:
    """A run that draws batches ahead as one on an accelerator does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Feed", partial(Feed, ahead=True))
        return pool_runs.train(options, *incidents)


@pytest.mark.parametrize("recipe_of", ["tiny_recipe", "streaming_recipe"])
def test_a_run_is_the_same_and_goes_on_to_the_bit(
    two_ranks: Ranks, tmp_path: Path, recipe_of: str, request: pytest.FixtureRequest
) -> None:
    """A batch that is drawn when the run is stopped is drawn again, also by a start that draws none ahead."""
    recipe = request.getfixturevalue(recipe_of)
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    plain = two_ranks.run(pool_runs.train, arguments(recipe, whole))
    options = arguments(recipe, run_dir)
    for train, step in ((train_ahead, 3), (train_ahead, 6), (pool_runs.train, 9)):
        stopped = two_ranks.run(train, options, ("early_signal", step, 1, "SIGTERM"))
        assert [part["status"] for part in stopped] == [75, 75], stopped[0]["message"]
    done = two_ranks.run(train_ahead, options)
    assert [part["status"] for part in done] == [0, 0], done[0]["message"]
    assert untimed(run_dir) == untimed(whole)  # their epochs too
    assert read_scores(run_dir) == read_scores(whole)
    for ours, theirs in zip(done[0]["parameters"], plain[0]["parameters"], strict=True):
        assert torch.equal(ours, theirs)


def test_a_fault_in_the_text_is_one_of_the_step_that_needs_it(
    two_ranks: Ranks, streaming_recipe: Path, tmp_path: Path
) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"text": [f"{number} {' '.join(WORDS[number % 5 :])}" for number in range(280)]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    (tmp_path / "cut.arrow").write_bytes(sink.getvalue().to_pybytes()[:-8])
    source = f"--data.sources=[{{name: cut, path: {tmp_path / 'cut.arrow'}}}]"
    lines = []
    for train in (pool_runs.train, train_ahead):
        run_dir = tmp_path / train.__name__
        ended = two_ranks.run(train, arguments(streaming_recipe, run_dir, source, "--logging.every_steps", "1"))
        assert [part["status"] for part in ended] == [1, 1]
        assert "cut.arrow cannot be read as an arrow file: it ends without" in ended[0]["message"]
        lines.append(untimed(run_dir))
    assert lines[0] == lines[1]
    assert read_metrics(run_dir)[-1]["step"] >= 4


class Numbers(Iterator[dict[str, Any]]):
    """Batches 1, 2, 3, ..."""

    def __init__(self, log: list[Any]) -> None:
        self.number, self._log = 0, log

    def __next__(self) -> dict[str, Any]:
        self.number += 1
        self._log.append(f"draw {self.number}")
        return {"number": self.number}

    @property
    def source_epochs(self) -> dict[str, float]:
        return {"": self.number}

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


def place(log: list[Any], batch: dict[str, Any]) -> dict[str, Any]:
    log.append(f"place {batch['number']}")
    return {"input": torch.empty(1, device="meta").as_subclass(Placed), "count": 1, "on host": torch.ones(1)}


class Placed(torch.Tensor):
    """On another device, as far as its type goes; notes the streams that it is recorded on."""

    streams: ClassVar[list[Any]] = []

    def record_stream(self, stream: Any) -> None:
        self.streams.append(stream)


def test_on_a_cpu_a_batch_is_drawn_when_it_is_asked_for() -> None:
    log: list[Any] = []
    batches: Any = Numbers(log)
    drawn = Feed(batches, partial(place, log), CPU)
    drawn.prefetch()
    assert log == []
    assert next(drawn)[0] == {"number": 1}
    assert log == ["draw 1", "place 1"]


def test_the_state_is_that_of_the_batches_returned() -> None:
    batches: Any = Numbers([])
    drawn = Feed(batches, lambda batch: batch, CPU, ahead=True)
    next(drawn)
    drawn.prefetch()
    drawn.prefetch()  # no further
    assert (batches.number, drawn.state_dict(), drawn.source_epochs) == (2, {"number": 1}, {"": 1})
    state = drawn.state_dict()
    assert next(drawn)[0] == {"number": 2}
    assert (drawn.state_dict(), drawn.source_epochs) == ({"number": 2}, {"": 2})
    drawn.prefetch()
    drawn.load_state_dict(state)
    assert next(drawn)[0] == {"number": 2}


class Accelerator:
    """Notes what is asked of an accelerator with streams, in order."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log

    def Stream(self) -> str:
        return "side"

    def current_stream(self) -> "Accelerator":
        return self

    def wait_stream(self, stream: str) -> None:
        self._log.append(f"wait for {stream}")

    @contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        self._log.append(f"on {stream}")
        yield
        self._log.append("on the current one")


def test_copies_are_on_a_stream_that_the_step_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn ahead, and what is not; memory of the copies is kept until the step has read them."""
    log: list[Any] = []
    accelerator, batches = Accelerator(log), Numbers(log)
    Placed.streams.clear()
    monkeypatch.setattr(feed, "get_accelerator", lambda: accelerator)
    drawn = Feed(batches, partial(place, log), torch.device("cuda"))  # type: ignore[arg-type]
    next(drawn)
    log.append("first step")
    drawn.prefetch()
    log.append("rest of it")
    next(drawn)
    copied = ["on side", "place {}", "on the current one"]
    assert log == [
        "draw 1",
        *(line.format(1) for line in copied),
        *("wait for side", "first step", "draw 2"),
        *(line.format(2) for line in copied),
        *("rest of it", "wait for side"),
    ]
    assert Placed.streams == [accelerator, accelerator]
