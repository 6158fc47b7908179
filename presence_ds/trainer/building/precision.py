"""Whether this machine computes in bfloat16."""

from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator

CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 and, as "bf16", 64-bit Arm


def hardware_has_bf16() -> bool:
    """True if the accelerator, or without one the CPU, has instructions for bfloat16 rather than an emulation."""
    accelerator = get_accelerator()
    if accelerator.device_name() == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator.device_name() != "cpu":
        return bool(accelerator.is_bf16_supported())
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and not CPU_FLAGS.isdisjoint(cpuinfo.read_text(encoding="utf-8").split())
