"""One rank of one trainer of the comparison. Started by `benchmarks.trainers.processes`."""

import logging
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from benchmarks.trainers import TRAINERS, Run, TrainerSetting
from presence_ds.trainer.ranks.process_group import Ranks


def work(setting: TrainerSetting, trainer: str, folder: Path, pipe: int) -> None:
    """Train, a turn at a time; at the end of each, tell what it took.

    Args:
        setting: What to train.
        trainer: Which of `benchmarks.trainers.TRAINERS`.
        folder: The trainer's own, with ``corpus`` in it.
        pipe: File descriptor of a connection. 0.0 goes there when the trainer is set up, the seconds of a turn after
            each, the losses by logged step in the end; each turn, and the last steps, begin with an answer.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(setting.cpu_threads())
    with Ranks() as ranks:
        parent: Connection[Any, Any] = Connection(pipe)
        began = None

        def rest() -> None:
            nonlocal began
            _synchronize()
            parent.send(0.0 if began is None else time.perf_counter() - began)
            parent.recv()
            ranks.barrier()
            began = time.perf_counter()

        run = Run(setting, folder, ranks)
        TRAINERS[trainer](run, rest)
        parent.send(run.losses)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    auto_cli(work, as_positional=False)
