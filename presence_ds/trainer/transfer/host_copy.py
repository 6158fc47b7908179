"""Figures of a step that the host looks at later, so that no step waits for the device to finish it."""

from __future__ import annotations

from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor


class HostCopy:
    """A tensor on its way to the host; only who asks for `values` waits, and a step later hardly that.

    On the CPU it is there at once, and nothing is copied: it must not be written to afterwards.
    """

    def __init__(self, tensor: Tensor) -> None:
        """Begin to copy ``tensor``, when the device has computed what it has been given so far."""
        self._values = tensor
        self._arrived: Any = None
        if tensor.device.type != "cpu":
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            self._arrived = get_accelerator().Event()
            self._arrived.record()

    @property
    def values(self) -> Tensor:
        """The tensor, on the host."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._values
