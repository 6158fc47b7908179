"""Where these tests run: on a CUDA device, or on the CPU where PRESENCE_GPU_TESTS is cpu, so that they cannot rot."""

import os

import pytest
import torch


def _device() -> torch.device:
    if os.environ.get("PRESENCE_GPU_TESTS") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = "torch sees no CUDA device (PRESENCE_GPU_TESTS=cpu runs these on the CPU)"
        pytest.skip(reason, allow_module_level=True)
    return torch.device("cuda", 0)


DEVICE = _device()
ON_GPU = DEVICE.type == "cuda"
