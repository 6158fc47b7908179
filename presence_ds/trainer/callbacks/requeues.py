"""How often SLURM has requeued the job, in every logged step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from presence_ds.trainer.callbacks.callback import Callback

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer


class Requeues(Callback):
    """Adds ``slurm_restart_count`` to the metrics, so that they tell which start of a job a step belongs to."""

    def __init__(self, count: int) -> None:
        self._count = count

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        metrics["slurm_restart_count"] = self._count
