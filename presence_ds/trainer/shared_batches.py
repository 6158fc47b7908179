"""Streamed batches of a run whose ranks share what happens to one of them."""

from typing import Any

from presence_ds.data import StreamedBatches
from presence_ds.data.streaming.batches import merge
from presence_ds.errors import PresenceError
from presence_ds.trainer.distributed import Ranks


class SharedBatches:
    """This rank's streamed batches. A fault in the text that one rank meets ends the run on all of them.

    Every method but the properties is called on every rank at once.
    """

    def __init__(self, batches: StreamedBatches, ranks: Ranks) -> None:
        self._batches = batches
        self._ranks = ranks

    @property
    def epoch(self) -> int:
        return self._batches.epoch

    @property
    def source_epochs(self) -> dict[str, float]:
        return self._batches.source_epochs

    def prime(self) -> None:
        """Read the first sample of every lane.

        Raises:
            PresenceError: what is wrong with the text of any of them.
        """
        with self._ranks.agreement():
            self._batches.prime()

    def __next__(self) -> dict[str, Any]:
        batch, error = {}, None
        try:
            batch = next(self._batches)
        except PresenceError as raised:
            error = raised
        if self._ranks.largest(int(error is not None))():
            with self._ranks.agreement():
                if error is not None:
                    raise error
        return batch

    def state_dict(self) -> dict[str, Any]:
        return merge(self._ranks.gather(self._batches.state_dict()))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches.load_state_dict(state)
