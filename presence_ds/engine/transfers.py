"""Copies from the host to the device that nothing waits for."""

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """``values`` of the host on ``device``, in ``dtype`` if that is given.

    From pageable memory a copy to a GPU waits for all that was launched before it.
    """
    values = values if dtype is None else values.to(dtype)
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)
