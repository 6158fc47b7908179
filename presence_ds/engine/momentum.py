"""Feature ``momentum`` of calibrated weights: the mean direction of the steps before, in the space of the sketches."""

from typing import Any

import torch
from torch import Tensor

DECAY = 0.95  # per optimizer step


class Momentum:
    """An exponentially decaying average of the mean gradient of every step, each at length 1.

    Gradients shrink by orders of magnitude early in training: at their own length the first steps would be all of it.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """``device`` is where the model computes."""
        self._device = device
        self.direction: Tensor | None = None  # [m] float32 on the device, never changed in place

    def align(self, sketches: Tensor) -> Tensor:
        """⟨p_i, m⟩ of ``sketches`` [B, m]: [B]; 0 before the first step."""
        return sketches.new_zeros(len(sketches)) if self.direction is None else sketches @ self.direction

    def update(self, total: Tensor) -> None:
        """Take in the sum of a step's sketches over all ranks, [m]; one that has no direction leaves all as it is."""
        length = total.norm()
        before = torch.zeros_like(total) if self.direction is None else self.direction
        after = DECAY * before + (1 - DECAY) * total / length
        self.direction = torch.where((length > 0) & length.isfinite(), after, before)

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint, on the host."""
        return {"direction": None if self.direction is None else self.direction.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, on the device whatever the checkpoint was read to."""
        held = state["direction"]
        self.direction = None if held is None else held.to(self._device, torch.float32, copy=True)
