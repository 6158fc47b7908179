"""The process and its surroundings: what a launcher has told it about its rank, and what the machine allows."""

import os
import sys
from pathlib import Path

CPU_RANKS = 2  # of a machine without a GPU: enough for everything to be partitioned


def launched() -> bool:
    """Whether a launcher (deepspeed, torchrun) started this process as one rank of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def environment_rank() -> int:
    """Global rank stated by the launcher, else the number of srun's task; 0 without either."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0"))


def local_size() -> int:
    """Ranks on this machine as stated by the launcher, DeepSpeed's or torchrun; 1 without one."""
    return int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cores_per_rank(ranks: int) -> int:
    """CPU cores this process may use, shared between ``ranks`` ranks of one machine."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, ranks))


def set_environment_defaults() -> None:
    """Keep DeepSpeed's compiled operators inside the Python environment, unless TORCH_EXTENSIONS_DIR says otherwise.

    Two environments that share a build folder would load each other's builds.
    """
    if os.access(sys.prefix, os.W_OK):
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
