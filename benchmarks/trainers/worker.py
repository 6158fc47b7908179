"""One rank of the comparison of trainers. Started by `benchmarks.trainer`."""

import json
import logging
import shutil
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from jsonargparse import auto_cli

from benchmarks.trainers import TRAINERS, Run, TrainerSetting
from benchmarks.turns import Turns
from presence_ds.data import prepare_corpus
from presence_ds.trainer.distributed import Ranks


def work(setting: TrainerSetting, trainers: list[str], result: Path) -> None:
    """Measure, and have rank 0 write a JSON object to ``result``.

    Its fields: ``parameters`` of the model; ``seconds`` of every measured turn of every trainer, the slowest rank's;
    ``losses`` by trainer and logged step.

    Args:
        setting: What to train.
        trainers: Which of `benchmarks.trainers.TRAINERS`.
        result: A file that does not exist.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(setting.cpu_threads())
    with Ranks() as ranks, tempfile.TemporaryDirectory() as own:
        folder = Path(ranks.broadcast(own))
        recipe, _ = setting.recipe(folder, ranks)
        if ranks.is_main:
            prepare_corpus(recipe.data, folder / "corpus")
        runs = {name: Run(setting, folder / name, ranks) for name in trainers}
        turns = {}
        for name, run in runs.items():
            if ranks.is_main:
                shutil.copytree(folder / "corpus", run.folder / "corpus")
            ranks.barrier()
            turns[name] = Turns(partial(TRAINERS[name], run))
            turns[name].go_on()  # until it is set up
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        for number in range(1 + setting.steps // setting.turn_steps):
            # the order turns, so that none always finds the caches warm
            for name in trainers if number % 2 == 0 else reversed(trainers):
                taken = _timed(turns[name], ranks)
                if number > 0:  # the first steps are not measured
                    seconds[name].append(taken)
        for turn in turns.values():
            turn.go_on()  # to its end
        if ranks.is_main:
            losses = {name: run.losses for name, run in runs.items()}
            parameters = sum(parameter.numel() for parameter in setting.model().parameters())
            result.write_text(json.dumps({"parameters": parameters, "seconds": seconds, "losses": losses}))


def _timed(turn: Turns, ranks: Ranks) -> float:
    """Seconds of a turn that all ranks begin together, of the slowest of them."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    ranks.barrier()
    synchronize()
    start = time.perf_counter()
    turn.go_on()
    synchronize()
    return max(ranks.gather(time.perf_counter() - start))


if __name__ == "__main__":
    auto_cli(work, as_positional=False)
