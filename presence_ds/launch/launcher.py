"""Starting the DeepSpeed launcher on this machine."""

import os
import re
import socket
import sys
from contextlib import ExitStack, suppress
from tempfile import NamedTemporaryFile
from typing import NoReturn

from deepspeed.accelerator import get_accelerator
from torch.distributed.elastic.utils.distributed import get_free_port

from presence_ds.errors import ConfigError
from presence_ds.launch.environment import CPU_RANKS, cores_per_rank
from presence_ds.launch.slurm import SlurmStep
from presence_ds.launch.supervisor import supervise


def local_processes(requested: int | None) -> int:
    """Ranks to start on this machine: as requested, else one per GPU, else `CPU_RANKS`."""
    if requested is not None:
        return requested
    accelerator = get_accelerator()
    return CPU_RANKS if accelerator.device_name() == "cpu" else int(accelerator.device_count())


def launch(arguments: list[str], requested: int | None, signals: list[int], step: SlurmStep | None) -> NoReturn:
    """Start the ranks of this machine under the DeepSpeed launcher of the running interpreter, and end as they do.

    Args:
        arguments: what follows ``presence``, on every rank.
        requested: number of ranks, or None for the default.
        signals: numbers of the signals that stop the run: this process passes them on to the ranks.
        step: with one task per node, where this launcher stands among those of the other nodes, which start as many
            ranks each; None: the run has this machine alone.
    """
    processes = local_processes(requested)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores_per_rank(processes)))
    os.environ.setdefault("DS_ACCELERATOR", get_accelerator().device_name())  # the ranks need not look again
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level=critical"]
    with ExitStack() as stack:
        if step is not None and step.nodes > 1:
            devices = device_numbers(processes)
            hosts = stack.enter_context(NamedTemporaryFile("w", encoding="utf-8", prefix="presence-hosts-"))
            print(
                "\n".join(f"node{node} slots={max(devices) + 1}" for node in range(step.nodes)), file=hosts, flush=True
            )
            # those of the other nodes only count, their own launchers have the numbers
            numbers = ",".join(map(str, devices))
            command += ["--include=" + "@".join(f"node{node}:{numbers}" for node in range(step.nodes))]
            command += [f"--hostfile={hosts.name}", "--no_ssh", f"--node_rank={step.node}"]
            command += [f"--master_addr={step.address}", f"--master_port={step.port}"]
        else:
            command.append("--hostfile=")
            # otherwise CUDA_VISIBLE_DEVICES decides
            if requested is not None or get_accelerator().device_name() == "cpu":
                command.append(f"--num_accelerators={processes}")
            command.append(f"--master_port={get_free_port()}")
        command += ["--no_local_rank", "--module", "presence_ds", *arguments]
        place = "" if step is None else f" on node {step.node} of {step.nodes}, {socket.gethostname()}"
        line = f"starting {processes} ranks{place}; the first start in an environment compiles an operator of DeepSpeed"
        with suppress(OSError):  # a job's log may lie on a full disk
            os.write(1, f"{line}\n".encode())
        status = supervise(command, processes, signals)
    sys.exit(status)


def device_numbers(processes: int) -> list[int]:
    """Which of this machine's devices the launcher is to give to its ranks: with a host file it asks nobody else.

    Raises:
        ConfigError: devices are named in another way than by numbers.
    """
    variable = get_accelerator().visible_devices_envs()[0]
    visible = os.environ.get(variable, "")
    if not visible or get_accelerator().device_name() == "cpu":
        return list(range(processes))
    if not re.fullmatch(r"\d+(,\d+)*", visible):
        raise ConfigError(
            f"{variable} is {visible}: the DeepSpeed launcher takes numbers over several nodes; start one task per GPU"
        )
    return [int(number) for number in visible.split(",")][:processes]
