"""The trainer of this package as `presence train` runs it: metrics file, score records, console and all."""

from collections.abc import Callable
from typing import Any

from benchmarks.trainers.run import Run
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.run import train_on
from presence_ds.trainer.run_directory.lock import RunLock


class _Turns(Callback):
    """Comes last of the callbacks."""

    def __init__(self, run: Run, rest: Callable[[], None]) -> None:
        self._run, self._rest = run, rest

    def on_train_start(self, trainer: Any) -> None:
        self._rest()

    def on_step(self, trainer: Any, metrics: Any) -> None:
        if trainer.step == 1:
            self._run.losses[1] = metrics["loss"]

    def on_log(self, trainer: Any, metrics: Any) -> None:
        self._run.losses[trainer.step] = metrics["loss"]

    def on_step_end(self, trainer: Any) -> None:
        if self._run.setting.rests_after(trainer.step):
            self._rest()


def trainer(run: Run, rest: Callable[[], None], **presence: Any) -> None:
    """Train with the fields ``presence`` of that section of the recipe."""
    recipe, resolved = run.setting.recipe(run.folder, **presence)
    with RunLock() as lock:
        train_on(run.ranks, lock, StopSignals(recipe.stop), recipe, None, resolved, {"turns": _Turns(run, rest)})
