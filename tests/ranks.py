"""A pool of gloo ranks that tests share: starting DeepSpeed takes seconds, so one process group serves a session."""

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch.multiprocessing as multiprocessing

TIMEOUT_S = 240


class Ranks:
    """``size`` processes of one process group, which run functions of importable modules side by side."""

    def __init__(self, size: int) -> None:
        self.size = size
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, size, port), daemon=True)
            process.start()
            self._connections.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """``function(*args)`` on every rank; the results by rank. A failure of any rank raises with its traceback."""
        for connection in self._connections:
            connection.send((function, args))
        results = []
        for rank, connection in enumerate(self._connections):
            if not connection.poll(TIMEOUT_S):
                self.close()
                raise TimeoutError(f"rank {rank} did not answer within {TIMEOUT_S} s")
            failed, value = connection.recv()
            if failed:
                self.close()
                raise AssertionError(f"rank {rank}:\n{value}")
            results.append(value)
        return results

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _serve(connection: Connection, rank: int, size: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",  # which the trainer leaves alone
    }
    import warnings

    warnings.simplefilter("ignore")
    import deepspeed
    import torch

    torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="gloo")
    while True:
        try:
            function, args = connection.recv()
        except EOFError:
            return
        try:
            connection.send((False, function(*args)))
        except BaseException:
            connection.send((True, traceback.format_exc()))
