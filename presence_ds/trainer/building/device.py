"""What a device computes in, and how much at best."""

import re
from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 and, as "bf16", 64-bit Arm
PEAK_TFLOPS = {  # of one device in 10¹² FLOP/s: dense bf16 or fp16 products accumulated in fp32, from data sheets
    "GB200": 2500.0,
    "B200": 2250.0,
    "GH200": 989.5,
    "H200": 989.5,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H100": 989.5,
    "A100": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "V100-PCIE": 112.0,
    "V100": 125.0,
    "T4": 65.0,
    "MI300X": 1307.4,
    "MI250X": 191.5,  # torch shows each of its two dies as a device
}


def known_peak_tflops(device: str, precision: str) -> float | None:
    """Peak of a device by its name in 10¹² FLOP/s.

    None for other devices, for a part of one (MIG), and in fp32, where it depends on whether TF32 is allowed.
    """
    if precision == "fp32" or "MIG" in device:
        return None
    return next((peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"\b{name}\b", device)), None)


def device_name() -> str:
    """Name of this rank's device, such as "NVIDIA H100 80GB HBM3"; "cpu" without an accelerator."""
    name = get_accelerator().device_name()
    return torch.cuda.get_device_name() if name == "cuda" else str(name)


def hardware_has_bf16() -> bool:
    """True if the accelerator, or without one the CPU, has instructions for bfloat16 rather than an emulation."""
    accelerator = get_accelerator()
    if accelerator.device_name() == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator.device_name() != "cpu":
        return bool(accelerator.is_bf16_supported())
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and not CPU_FLAGS.isdisjoint(cpuinfo.read_text(encoding="utf-8").split())
