"""Whole runs on the ranks of a pool, without a launcher, and what can happen to them."""

import fcntl
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param

from presence_ds.commands.recipe_arguments import read_recipe, resolved_recipe
from presence_ds.errors import PresenceError
from presence_ds.trainer import run
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.stopping import LOOK_EVERY
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.run_directory.lock import RunLock
from presence_ds.trainer.transfer.host_copy import HostCopy
from tests.trainer.checkpoint.runs import make_parser


class Incident(Callback):
    """Does ``what`` on ``rank`` (or on all, if None) after the last micro-step of optimizer step ``step``."""

    def __init__(self, what: str, step: int, rank: int | None, argument: Any = None) -> None:
        self.what, self.step, self.rank, self.argument = what, step, rank, argument

    def on_step(self, trainer: Any, metrics: Any) -> None:
        if trainer.step == self.step and self.rank in (None, dist.get_rank()):
            getattr(self, self.what)(trainer, metrics)

    def on_micro_step(self, trainer: Any, batch: Any) -> None:
        if self.what == "early_signal" and trainer.step == self.step - 1 and self.rank in (None, dist.get_rank()):
            os.kill(os.getpid(), getattr(signal, self.argument))

    def early_signal(self, trainer: Any, metrics: Any) -> None:
        """It came after the first micro-step."""

    def signal(self, trainer: Any, metrics: Any) -> None:
        os.kill(os.getpid(), getattr(signal, self.argument))

    def touch(self, trainer: Any, metrics: Any) -> None:
        Path(self.argument).touch()
        time.sleep(LOOK_EVERY)

    def is_held(self, trainer: Any, metrics: Any) -> None:
        with open(self.argument, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        raise AssertionError(f"nothing holds {self.argument}")

    def poison(self, trainer: Any, metrics: Any) -> None:
        for parameter in trainer.engine.module.parameters():
            parameter.data.fill_(self.argument)

    def metric(self, trainer: Any, metrics: Any) -> None:
        metrics |= self.argument

    def gradient_norm(self, trainer: Any, metrics: Any) -> None:
        trainer.gradient_norm = HostCopy(torch.tensor(self.argument))

    def loss_scale(self, trainer: Any, metrics: Any) -> None:
        trainer.engine.optimizer.loss_scaler.cur_scale = self.argument


def train(
    arguments: list[str], *incidents: tuple[Any, ...], first: dict[str, Callback] | None = None
) -> dict[str, Any]:
    """Train on this rank as ``presence train`` would; the exit status, the message, the parameters.

    ``first``: callbacks that are called before all others but the incidents.
    """
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    recipe, recipe_file = read_recipe(parser, parsed)
    resolved = resolved_recipe(parser, parsed, recipe, recipe_file)
    make, trainers = run.make_callbacks, []

    class Keep(Callback):
        def on_train_start(self, trainer: Any) -> None:
            trainers.append(trainer)

    def with_incidents(*args: Any) -> dict[str, Callback]:
        before = {f"incident {index}": Incident(*incident) for index, incident in enumerate(incidents)}
        return before | {"keep": Keep()} | (first or {}) | make(*args)

    status, message = 0, ""
    run.make_callbacks = with_incidents
    try:
        with StopSignals(recipe.stop) as signals, RunLock() as lock:
            run.train_on(Ranks(signals), lock, signals, recipe, recipe_file, resolved)
    except PresenceError as error:
        status, message = error.status, str(error)
    finally:
        run.make_callbacks = make
        for name in recipe.stop.signals:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    parameters: list[torch.Tensor] = []
    if trainers:
        parameters = [safe_get_full_fp32_param(p).cpu().clone() for p in trainers[0].engine.module.parameters()]
    return {"status": status, "message": message, "parameters": parameters}
