"""What SLURM tells a process that srun has started: which task of which job step it is.

One task per node is a place for the DeepSpeed launcher, which starts the ranks of that node. Several tasks per node are
the ranks themselves: their numbers are srun's, and no launcher is needed.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from presence_ds.errors import ConfigError

FIRST_PORT, PORTS = 20_000, 12_000  # below the ports that Linux gives to outgoing connections
LARGEST_STEP = 0xFFFF_FFF0 - 1  # above are the batch script, an interactive step and the like


@dataclass(frozen=True)
class SlurmStep:
    """One task of a job step of `tasks` tasks on `nodes` nodes.

    Attributes:
        job: number of the job.
        task: from 0, over all nodes.
        local_task: from 0, on this node.
        node: from 0, of this step.
        node_list: the nodes of the step in SLURM's short form, such as ``n[001-004],n010``.
    """

    job: int
    task: int
    tasks: int
    local_task: int
    node: int
    nodes: int
    node_list: str

    @property
    def is_rank(self) -> bool:
        """Whether the task is one rank, rather than the place for a launcher of this node's ranks."""
        return self.tasks > self.nodes

    @property
    def address(self) -> str:
        """Where rank 0 listens: MASTER_ADDR, or else the first node."""
        return os.environ.get("MASTER_ADDR") or first_host(self.node_list)

    @property
    def port(self) -> int:
        """MASTER_PORT, or else one by the number of the job, so that two jobs on one node do not meet."""
        return int(os.environ.get("MASTER_PORT") or FIRST_PORT + self.job % PORTS)

    def check_shell(self, environment: Mapping[str, str] = os.environ) -> None:
        """Raise `ConfigError` if this is typed in a shell that is one of several tasks: the others will not come."""
        task = environment.get("SLURM_TASK_PID")  # of the process that srun has started
        if self.tasks > 1 and task != str(os.getpid()) and sys.stdin is not None and sys.stdin.isatty():
            raise ConfigError(
                f"this shell is task {self.task} of the {self.tasks} tasks of an interactive SLURM step, and the "
                f"others do not train: leave it and start all of them with srun, without --pty; or begin it with "
                f"--ntasks=1; or, for this node alone, env -u SLURM_STEP_ID presence train"
            )

    def check_devices(self, devices: int, environment: Mapping[str, str] = os.environ) -> None:
        """Raise `ConfigError` if more tasks are ranks of a node than it has accelerators.

        Args:
            devices: accelerators that this task sees: 1 where SLURM has bound each task to its own.
        """
        per_node = self.tasks // self.nodes
        on_node = environment.get("SLURM_GPUS_ON_NODE", "")
        seen = int(on_node) if on_node.isdigit() else devices
        if seen < per_node and (devices > 1 or on_node.isdigit()):
            raise ConfigError(
                f"srun has started {per_node} tasks on each node, and there are {seen} accelerators for them: give "
                f"--ntasks-per-node, 1 or {seen}"
            )

    def rank_environment(self, devices: int) -> dict[str, str]:
        """What a launcher would set for the rank that this task is; ``devices`` as for `check_devices`."""
        return {
            "RANK": str(self.task),
            "WORLD_SIZE": str(self.tasks),
            "LOCAL_RANK": str(self.local_task if devices != 1 else 0),
            "LOCAL_SIZE": str(self.tasks // self.nodes),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def slurm_step(environment: Mapping[str, str] = os.environ) -> SlurmStep | None:
    """The task of a job step that this process is; None outside of srun, as in a batch script or without SLURM.

    Raises:
        ConfigError: the tasks are not spread evenly over the nodes.
    """
    number = environment.get("SLURM_STEP_ID", "")
    if not number.isdigit() or int(number) > LARGEST_STEP:
        return None
    step = SlurmStep(
        job=int(environment["SLURM_JOB_ID"]),
        task=int(environment["SLURM_PROCID"]),
        tasks=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_task=int(environment["SLURM_LOCALID"]),
        node=int(environment["SLURM_NODEID"]),
        nodes=int(environment["SLURM_STEP_NUM_NODES"]),
        node_list=environment["SLURM_STEP_NODELIST"],
    )
    if step.tasks % step.nodes:
        raise ConfigError(
            f"srun has started {step.tasks} tasks on {step.nodes} nodes: give --ntasks-per-node, 1 or one per GPU"
        )
    return step


def first_host(node_list: str) -> str:
    """The first name of ``n[001-004,007],n010``, here n001."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", node_list).split(",")[0]


def restart_count(environment: Mapping[str, str] = os.environ) -> int | None:
    """How often SLURM has requeued this job; None outside of a job."""
    if "SLURM_JOB_ID" not in environment:
        return None
    return int(environment.get("SLURM_RESTART_COUNT", "0"))
