"""Runs a module of the benchmarks on every rank, and brings back what rank 0 found; a group of one process."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 3600


def rendezvous(ranks: int) -> list[dict[str, str]]:
    """The variables by which each of ``ranks`` processes on this machine finds the others."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def run_module(module: str, options: dict[str, Any], ranks: int, environment: dict[str, str]) -> dict[str, Any]:
    """Run ``python -m MODULE --NAME VALUE ... --result FILE`` on every rank; what rank 0 wrote to the file, from JSON.

    Args:
        module: a command line with jsonargparse.
        options: by name, plain values.
        environment: variables of the processes, beside those of this one.

    Raises:
        RuntimeError: a rank failed; the message ends with its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log")
        command = [sys.executable, "-m", module, "--result", str(result)]
        for name, value in options.items():
            command += [f"--{name}", json.dumps(value)]
        with log.open("w", encoding="utf-8") as stream:
            processes = [
                subprocess.Popen(
                    command,
                    env=os.environ | environment | rank,
                    cwd=ROOT,
                    stdout=stream,
                    stderr=stream,
                )
                for rank in rendezvous(ranks)
            ]
            try:
                failed = [process.wait(TIMEOUT_S) for process in processes]
            finally:
                for process in processes:
                    process.kill()
        if any(failed):
            said = log.read_text(encoding="utf-8")[-3000:]
            raise RuntimeError(f"{' '.join(command)} failed:\n{said}")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


@contextmanager
def one_process() -> Iterator[None]:
    """A process group of this process alone, unless there is one."""
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
