"""A real Slurm in one folder: munged, slurmctld and a slurmd per node, all on this machine and for this user.

What a cluster has and this one has not: accelerators, cgroups, accounting, a second machine. Its nodes are named like
addresses of the loopback interface, so that their names resolve without a line in /etc/hosts.
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
PACKAGES = "slurm-wlm and munge"
PATIENCE = 60.0  # seconds for a daemon to answer
CONFIGURATION = """
ClusterName=presence
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=5
SlurmdParameters=config_overrides
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What a cluster needs and this machine has not got."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass
class Cluster:
    """Started by `start`, stopped by `stop`, which leaves no process.

    Attributes:
        folder: everything the daemons write; a short path, since a socket lies in it.
        nodes: names of the nodes.
    """

    folder: Path
    nodes: list[str] = field(default_factory=lambda: ["127.0.0.11", "127.0.0.12", "127.0.0.13"])
    cpus: int = 32  # of each node, whatever the machine has

    def __post_init__(self) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        self.environment |= {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        with ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in range(len(self.nodes) + 1)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            ports = [probe.getsockname()[1] for probe in probes]
        text = CONFIGURATION.format(
            host=socket.gethostname(),
            port=ports[0],
            user=getpass.getuser(),
            folder=self.folder,
            first_job=ports[0],  # jobs listen on ports by their numbers, also those of another cluster on this machine
        )
        for name, port in zip(self.nodes, ports[1:], strict=True):
            text += f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname={socket.gethostname()} Port={port} "
            text += f"CPUs={self.cpus} RealMemory=1000 State=UNKNOWN\n"
        (self.folder / "slurm.conf").write_text(text)
        files = ("key-file", "socket", "pid-file", "log-file", "seed-file")
        names = ("munge.key", "munge.socket", "munged.pid", "munged.log", "munge.seed")
        options = [f"--{option}={self.folder / name}" for option, name in zip(files, names, strict=True)]
        self._daemon("munged", "munged", "--foreground", "--force", *options)
        wait_for(lambda: (self.folder / "munge.socket").exists(), "munged made no socket")
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        for name in self.nodes:
            self.start_node(name)
        wait_for(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), f"nodes are not idle, see {self.folder}")

    def start_node(self, name: str) -> None:
        """Start the slurmd of a node."""
        self._daemon(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """A node goes down: its slurmd and everything that runs under it is killed at once."""
        daemon = self._daemons.pop(name)
        victims = [process for process in self._processes() if _variable(process, "SLURMD_NODENAME") == name]
        parents = [parent for process in victims if (parent := process.parent()) and "slurmstepd" in parent.name()]
        for process in [psutil.Process(daemon.pid), *parents, *victims]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        daemon.wait()

    def states(self) -> dict[str, str]:
        """State of each node, such as idle, mixed, down*."""
        lines = self.command("sinfo", "--noheader", "--Node", "--format=%N %t").stdout.split("\n")
        return dict(line.split() for line in lines if line.strip())

    def command(
        self, *arguments: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands, with more variables in its ``environment`` if need be."""
        return subprocess.run(
            [*map(str, arguments)],
            env=self.environment | (environment or {}),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def job(self, number: str) -> dict[str, str]:
        """What the controller says of a job: JobState, Restarts, ExitCode, Reason and so on."""
        line = self.command("scontrol", "show", "job", "--oneliner", number).stdout.split("\n")[0]
        return dict(part.split("=", 1) for part in line.split() if "=" in part)

    def stop(self) -> None:
        """End every daemon and what runs under it."""
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            daemon.wait()
        left = self._processes()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left)

    def _processes(self) -> list[psutil.Process]:
        """Every process that has this cluster's configuration in its environment, but for this one and its parents."""
        ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
        conf = self.environment["SLURM_CONF"]
        return [p for p in psutil.process_iter() if p.pid not in ours and _variable(p, "SLURM_CONF") == conf]

    def _daemon(self, name: str, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=PATH)
        with open(self.folder / f"{name}.out", "a") as out:
            self._daemons[name] = subprocess.Popen(
                [str(path), *arguments], env=self.environment, stdout=out, stderr=out, start_new_session=True
            )


def _variable(process: psutil.Process, name: str) -> str | None:
    """A variable of a process' environment; None without it, and of a process that has gone."""
    with suppress(psutil.Error):
        return str(process.environ()[name]) if name in process.environ() else None
    return None


def wait_for(done: Callable[[], bool], message: str, seconds: float = PATIENCE) -> None:
    """Wait until ``done()``.

    Raises:
        TimeoutError: with ``message``, after ``seconds``.
    """
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(message)
        time.sleep(0.1)


PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
