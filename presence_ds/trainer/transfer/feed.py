"""Micro-batches on the device before a step asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from presence_ds.data import BatchStream, StreamedBatches
from presence_ds.errors import PresenceError

Inputs = dict[str, Any]  # what the engine takes of a batch, on the device
Drawn = tuple[dict[str, Any], Inputs]


class Feed(Iterator[Drawn]):
    """Each batch as it was drawn, on the host, and what the engine takes of it, on the device.

    On an accelerator the next one is drawn while the device computes (`prefetch`), and copied on a stream of its own:
    neither the device nor the host waits for it. Its state is that of the batches returned, not of those drawn.
    On a CPU a batch is drawn when it is asked for.
    """

    def __init__(
        self,
        batches: BatchStream | StreamedBatches,
        place: Callable[[dict[str, Any]], Inputs],
        device: torch.device,
        *,
        ahead: bool | None = None,
    ) -> None:
        """``place`` gives the inputs of a batch, copied without waiting; ``ahead`` is None: on an accelerator alone."""
        on_host = device.type == "cpu"
        self._batches = batches
        self._place = place
        self._ahead = not on_host if ahead is None else ahead
        self._stream = None if on_host else get_accelerator().Stream()
        self._next: Drawn | PresenceError | None = None  # the one that is drawn already, or why there is none
        self._left: tuple[dict[str, Any], dict[str, float]] = {}, {}  # state and epochs before it was

    def __next__(self) -> Drawn:
        """The next batch; after it was prefetched, at once.

        Raises:
            PresenceError: the text cannot be read on.
        """
        drawn, self._next = self._next, None
        if isinstance(drawn, PresenceError):
            raise drawn
        batch, inputs = drawn or self._draw()
        if self._stream is not None:
            current = get_accelerator().current_stream()
            current.wait_stream(self._stream)
            for value in inputs.values():
                if isinstance(value, Tensor) and value.device.type != "cpu":
                    value.record_stream(current)  # or its memory would be free for the other stream's next copy
        return batch, inputs

    def prefetch(self) -> None:
        """Draw the next batch; on every rank alike, when the device has work and the step's scores are there."""
        if not self._ahead or self._next is not None:
            return
        self._left = self._batches.state_dict(), self._batches.source_epochs
        try:
            self._next = self._draw()
        except PresenceError as error:  # of the step that needs it
            self._next = error

    def _draw(self) -> Drawn:
        batch = next(self._batches)
        with nullcontext() if self._stream is None else get_accelerator().stream(self._stream):
            return batch, self._place(batch)

    @property
    def source_epochs(self) -> dict[str, float]:
        """Of the batches returned, as `BatchStream` has them."""
        return self._batches.source_epochs if self._next is None else self._left[1]

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after the last batch returned."""
        return self._batches.state_dict() if self._next is None else self._left[0]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self._next = None
        self._batches.load_state_dict(state)
