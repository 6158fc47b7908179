"""Starting the DeepSpeed launcher on this machine."""

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from deepspeed.accelerator import get_accelerator

from presence_ds.trainer.distributed import cores_per_rank
from presence_ds.trainer.supervisor import supervise

CPU_RANKS = 2  # without a GPU: enough for everything to be partitioned


def set_environment_defaults() -> None:
    """Keep DeepSpeed's compiled operators inside the Python environment, unless TORCH_EXTENSIONS_DIR says otherwise.

    Two environments that share a build folder would load each other's builds.
    """
    if os.access(sys.prefix, os.W_OK):
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))


def local_processes(requested: int | None) -> int:
    """Ranks to start on this machine: as requested, else one per GPU, else `CPU_RANKS`."""
    if requested is not None:
        return requested
    accelerator = get_accelerator()
    return CPU_RANKS if accelerator.device_name() == "cpu" else int(accelerator.device_count())


def launch(arguments: list[str], requested: int | None, signals: list[int]) -> NoReturn:
    """Start the ranks of this machine under the DeepSpeed launcher of the running interpreter, and end as they do.

    Args:
        arguments: what follows ``presence train``.
        requested: number of ranks, or None for the default.
        signals: numbers of the signals that stop the run: this process passes them on to the ranks.
    """
    processes = local_processes(requested)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores_per_rank(processes)))
    os.environ.setdefault("DS_ACCELERATOR", get_accelerator().device_name())  # the ranks need not look again
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level=critical", "--hostfile="]
    if requested is not None or get_accelerator().device_name() == "cpu":  # otherwise CUDA_VISIBLE_DEVICES decides
        command.append(f"--num_accelerators={processes}")
    command += [f"--master_port={free_port()}", "--no_local_rank", "--module", "presence_ds.train", *arguments]
    print(
        f"starting {processes} ranks; the first start in an environment compiles an operator of DeepSpeed", flush=True
    )
    sys.exit(supervise(command, processes, signals))


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
