"""One rank of a measurement: takes steps with the asked variants in turn. Started by `benchmarks.overhead`."""

import json
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from jsonargparse import auto_cli

from benchmarks.setting import Setting
from benchmarks.variants import VARIANTS, Step


def work(setting: Setting, variants: list[str], result: Path) -> None:
    """Measure, and have rank 0 write a JSON object to ``result``.

    Its fields: ``parameters``; ``seconds``, of every measured step of every variant; ``memory_mib``, by how much this
    process has grown at its highest, or the peak of the GPU's allocator; ``scores`` of the last step's samples.

    Args:
        setting: What to train.
        variants: Which of `benchmarks.variants.VARIANTS`.
        result: A file that does not exist.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(setting.cpu_threads())
    deepspeed.init_distributed()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if torch.cuda.is_available():
        torch.cuda.set_device(device)
    torch.manual_seed(dist.get_rank())
    shape = (setting.warmup + setting.steps, setting.batch_size, setting.sequence_length)
    batches = torch.randint(setting.vocabulary, shape).to(device)
    before = _resident_mib("VmRSS")
    steps = {name: VARIANTS[name](setting) for name in variants}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    scores: dict[str, list[float]] = {}
    for number, ids in enumerate(batches):
        # the order turns, so that none always finds the caches warm
        for name in variants if number % 2 == 0 else reversed(variants):
            taken, found = timed(steps[name], ids)
            if number >= setting.warmup:
                seconds[name].append(taken)
            if found is not None:
                scores[name] = found.tolist()
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else _resident_mib("VmHWM") - before
    if dist.get_rank() == 0:
        found_here = {
            "parameters": setting.parameters(),
            "seconds": seconds,
            "memory_mib": round(peak),
            "scores": scores,
        }
        result.write_text(json.dumps(found_here), encoding="utf-8")
    dist.barrier()


def timed(step: Step, ids: torch.Tensor) -> tuple[float, Any]:
    """Seconds of a step that all ranks begin together, and what it returns."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    dist.barrier()
    synchronize()
    start = time.perf_counter()
    found = step(ids)
    synchronize()
    return time.perf_counter() - start, found


def _resident_mib(field: str) -> float:
    # not getrusage: its maximum is inherited from the process that started this one
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split(f"{field}:")[1].split()[0]) / 2**10


if __name__ == "__main__":
    auto_cli(work, as_positional=False)
