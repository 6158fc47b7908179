"""Batches of a stream on one rank, resumable at any batch and on any number of ranks."""

import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from presence_ds.data.batches.training import check_identity
from presence_ds.data.samples.objective import Objective
from presence_ds.data.streaming.stream import LaneSample, RankSamples
from presence_ds.errors import PresenceError


class StreamedBatches(Iterator[dict[str, Any]]):
    """Micro-batches of one rank without end, as those of `BatchStream`.

    Of every ``micro_batch_size * world_size`` positions the rank takes each ``world_size``-th one. The state is the
    number of samples taken over all ranks, and those of the rank's lanes: enough for it to go on, and to be divided
    anew between another number of ranks (`divide`).

    Args:
        samples: of this rank.
        objective: what is made of them.
        micro_batch_size: samples of a batch.
        num_workers: processes that read and tokenize, beside this one; 0: this one does.
    """

    def __init__(self, samples: RankSamples, objective: Objective, micro_batch_size: int, num_workers: int = 0) -> None:
        self._samples = samples
        self._objective = objective
        self._micro_batch_size = micro_batch_size
        self._loader = DataLoader(
            samples,
            batch_size=None,
            num_workers=num_workers,
            prefetch_factor=max(2, -(-2 * micro_batch_size // num_workers)) if num_workers else None,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # otherwise the seeds of the workers are drawn from the global generator
        )
        self._identity = samples.stream.identity()
        self._iterator: Iterator[LaneSample | PresenceError] | None = None
        self._ahead: deque[LaneSample] = deque()
        self._states: dict[int, dict[str, Any]] = {}
        self.position = 0

    @property
    def source_epochs(self) -> dict[str, float]:
        """Epochs of each source, by name, on this rank's lanes, to within a file."""
        return self._samples.stream.epochs(self.state_dict()["lanes"])

    def prime(self) -> None:
        """Read the first sample of every lane of this rank.

        Raises:
            PresenceError: what is wrong with the text there.
        """
        lanes = self._samples.stream.streaming.lanes
        while len(self._ahead) < -(-lanes // self._samples.world_size):
            self._ahead.append(self._read())

    def read_ahead(self, batches: int = 1) -> None:
        """Read the samples of the next ``batches``.

        Raises:
            DataError: the text cannot be read on.
        """
        while len(self._ahead) < batches * self._micro_batch_size:
            self._ahead.append(self._read())

    def __next__(self) -> dict[str, Any]:
        """The next batch.

        Raises:
            DataError: the text cannot be read on.
        """
        self.read_ahead()
        taken = [self._ahead.popleft() for _ in range(self._micro_batch_size)]
        own = self._samples.rank + np.arange(self._micro_batch_size) * self._samples.world_size
        draws = self.position + own  # each another number, the same on any number of ranks
        self._states |= {item.lane: item.state for item in taken}
        self.position += self._micro_batch_size * self._samples.world_size
        samples = [item.sample for item in taken]
        rows: Any = [sample.input_ids for sample in samples]
        if len({len(row) for row in rows}) == 1:  # as `PackedDataset` has them
            rows = np.stack(rows)
        pieces = {"pieces": [[*sample.pieces] for sample in samples]} if self._objective.reads_pieces else {}
        return {
            **self._objective({"input_ids": rows, **pieces}, draws),
            **pieces,
            "source_ids": torch.tensor([item.source_id for item in taken]),
            "offsets": torch.tensor([sample.offset for sample in samples]),
            "document_ids": [sample.document_id for sample in samples],
        }

    def _read(self) -> LaneSample:
        if self._iterator is None:
            self._samples.position, self._samples.states = self.position, dict(self._states)
            with _tokenizers_may_fork():
                self._iterator = iter(self._loader)
        found = next(self._iterator)
        if isinstance(found, PresenceError):
            raise found
        return found

    def state_dict(self) -> dict[str, Any]:
        """What this rank needs to go on: plain values."""
        own = self._of_rank(self._states, self._samples.rank, self._samples.world_size)
        return {"position": self.position, "order": self._identity, "lanes": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken, on as many ranks, or what `divide` has made of the states for others.

        Raises:
            DataError: the text, its tokenizer, the seed or what else the order depends on is another.
        """
        check_identity(state["order"], self._identity)
        self.position, self._states = state["position"], dict(state["lanes"])
        self._iterator = None
        self._ahead.clear()

    def divide(self, states: Iterator[dict[str, Any]], ranks: int) -> list[dict[str, Any]]:
        """The states of each of ``ranks`` ranks, out of those of all ranks that there were, after the same batch.

        A lane that several ranks had a part in is as far as the one of them that had its last sample.
        """
        lanes: dict[int, dict[str, Any]] = {}
        for state in states:
            for number, lane in state["lanes"].items():
                if number not in lanes or lanes[number]["taken"] < lane["taken"]:
                    lanes[number] = lane
        return [{**state, "lanes": self._of_rank(lanes, rank, ranks)} for rank in range(ranks)]

    def _of_rank(self, states: dict[int, dict[str, Any]], rank: int, ranks: int) -> dict[int, dict[str, Any]]:
        """The states of the lanes that some of the positions of ``rank`` are on."""
        step = math.gcd(ranks, self._samples.stream.streaming.lanes)
        return {number: states[number] for number in sorted(states) if (number - rank) % step == 0}


@contextmanager
def _tokenizers_may_fork() -> Iterator[None]:
    """Workers that are started here tokenize with one thread: those of ``tokenizers`` do not survive the fork."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _unchanged(item: Any) -> Any:
    return item
