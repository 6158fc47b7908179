"""Streamed batches of a run whose ranks share what happens to one of them."""

from collections.abc import Callable, Iterator
from typing import Any

from presence_ds.data import StreamedBatches
from presence_ds.errors import PresenceError
from presence_ds.trainer.distributed import Ranks


class SharedBatches:
    """This rank's streamed batches. A fault in the text that one rank meets ends the run on all of them.

    A batch is read while the one before is given, and ranks ask each other whether all could read it while they train
    on that one, so that none waits for the answer.
    """

    def __init__(self, batches: StreamedBatches, ranks: Ranks) -> None:
        self._batches = batches
        self._ranks = ranks
        self._error: PresenceError | None = None  # of this rank, in the next batch
        self._faults: Callable[[], int] | None = None  # on any rank, in the next batch

    @property
    def epoch(self) -> int:
        return self._batches.epoch

    @property
    def source_epochs(self) -> dict[str, float]:
        return self._batches.source_epochs

    def prime(self) -> None:
        """Read the first sample of every lane; on every rank at once.

        Raises:
            PresenceError: what is wrong with the text of any of them.
        """
        with self._ranks.agreement():
            self._batches.prime()

    def __next__(self) -> dict[str, Any]:
        """The next batch; on every rank at once.

        Raises:
            PresenceError: the same on every rank, if the text cannot be read on on any.
        """
        if self._faults is None:
            self._read_ahead()
        assert self._faults is not None
        if self._faults():
            with self._ranks.agreement():
                if self._error is not None:
                    raise self._error
        batch = next(self._batches)
        self._read_ahead()
        return batch

    def _read_ahead(self) -> None:
        try:
            self._batches.read_ahead()
        except PresenceError as error:
            self._error = error
        self._faults = self._ranks.largest(int(self._error is not None))

    def state_dict(self) -> dict[str, Any]:
        return self._batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches.load_state_dict(state)
        self._error = self._faults = None

    def divide(self, states: Iterator[dict[str, Any]], ranks: int) -> list[dict[str, Any]]:
        return self._batches.divide(states, ranks)
