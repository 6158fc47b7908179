"""One rank of a command of the trainer, without a launcher, on one core or one accelerator."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.elastic.utils.distributed import get_free_port


def at_a_time() -> int:
    """Runs that this machine has room for: one on an accelerator, else one on every processor that may be used."""
    return 1 if torch.accelerator.is_available() else len(os.sched_getaffinity(0))


def run_rank(arguments: Sequence[Any], core: int, log: int) -> int:
    """``presence ARGUMENTS`` with the optimizers of `study.optimizers`; its exit status.

    Args:
        core: the processor that it may use, on a machine without accelerators.
        log: file descriptor of what it prints.
    """
    environment = os.environ | {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(get_free_port()),
        "WANDB_MODE": "disabled",
    }
    on_cpu = not torch.accelerator.is_available()
    if on_cpu:
        environment["OMP_NUM_THREADS"] = "1"
    command: list[Any] = [sys.executable, "-m", "study.presence", *arguments]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if on_cpu:
        os.sched_setaffinity(process.pid, {core})
    try:
        return process.wait()
    finally:
        process.kill()  # of one that has ended nothing is left to kill
