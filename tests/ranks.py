"""A pool of gloo ranks that tests share: starting DeepSpeed takes seconds, so one process group serves a session."""

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch.multiprocessing as multiprocessing

TIMEOUT_S = 600  # on a machine that has other work


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def forked(target: Callable[..., None], *args: Any, daemon: bool = False) -> BaseProcess:
    """A process that runs ``target(*args)`` in this one's environment, forked from one that has everything imported."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a look for GPUs by CUDA itself forbids them to forks
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["presence_ds.trainer.run", "presence_ds.cli", "tests.soak.kill"])
    process: BaseProcess = context.Process(target=_in, args=(dict(os.environ), target, *args), daemon=daemon)
    process.start()
    return process


def _in(environment: dict[str, str], target: Callable[..., None], *args: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*args)


class Ranks:
    """``size`` processes of one process group, which run functions of importable modules side by side."""

    def __init__(self, size: int, *, imports_anew: bool = False) -> None:
        """``imports_anew``: for libraries that read the environment when they are imported."""
        self.size = size
        port = free_port()
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for rank in range(size):
            ours, theirs = multiprocessing.Pipe()
            if imports_anew:
                process: BaseProcess = multiprocessing.get_context("spawn").Process(
                    target=_serve, args=(theirs, rank, size, port), daemon=True
                )
                process.start()
            else:
                process = forked(_serve, theirs, rank, size, port, daemon=True)
            self._processes.append(process)
            self._connections.append(ours)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """``function(*args, **kwargs)`` on every rank; the results by rank.

        Raises:
            AssertionError: it failed on a rank, whose traceback is the message.
            TimeoutError: a rank did not answer.
        """
        for connection in self._connections:
            connection.send((function, args, kwargs))
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

    from presence_ds.trainer.ranks.leftovers import clear_stale_locks, operator_folder

    torch.set_num_threads(1)
    clear_stale_locks(rank, operator_folder())  # or the ranks would wait for a killed compiler until TIMEOUT_S
    deepspeed.init_distributed(dist_backend="gloo")
    while True:
        try:
            function, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            connection.send((False, function(*args, **kwargs)))
        except BaseException:
            connection.send((True, traceback.format_exc()))
