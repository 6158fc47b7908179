"""One rank of a command of the trainer, without a launcher, on one core."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from torch.distributed.elastic.utils.distributed import get_free_port


def run_rank(arguments: Sequence[Any], core: int, log: int) -> int:
    """``presence ARGUMENTS`` with the optimizers of `study.optimizers`; its exit status.

    Args:
        core: the processor that it may use.
        log: file descriptor of what it prints.
    """
    environment = os.environ | {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(get_free_port()),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    command: list[Any] = [sys.executable, "-m", "study.presence", *arguments]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    os.sched_setaffinity(process.pid, {core})
    try:
        return process.wait()
    finally:
        process.kill()  # of one that has ended nothing is left to kill
