"""Copies from the host to a device that nothing waits for."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """``tensor`` on ``device``, in ``dtype`` if that is given; one of the host is converted there.

    From pageable memory a copy to a GPU would wait for all that was launched before it.
    """
    tensor, device = tensor if dtype is None else tensor.to(dtype), torch.device(device)
    moves = tensor.device.type == "cpu" and device.type not in ("cpu", "meta")
    return (tensor.pin_memory() if moves else tensor).to(device, non_blocking=True)
