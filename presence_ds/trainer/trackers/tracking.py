"""Tells the trackers of a recipe what is logged, and keeps what metrics.jsonl has no place for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from presence_ds.data import Corpus
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.metrics_file import MetricsFile, json_value
from presence_ds.trainer.callbacks.setup_facts import describe_weights
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.histograms import step_histograms
from presence_ds.trainer.trackers.history import make_line
from presence_ds.trainer.trackers.sample_table import SampleTable
from presence_ds.trainer.trackers.tensorboard import TensorBoard
from presence_ds.trainer.trackers.tracker import Tracker, TrackerConfig
from presence_ds.trainer.trackers.trackio import Trackio
from presence_ds.trainer.trackers.wandb_run import WandbRun
from presence_ds.trainer.trackers.worker import Worker, close, is_due

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Batch, Metrics, Trainer


class Tracking(Callback):
    """On every rank, as tables of samples are of all of them; only rank 0 has trackers.

    Everything shown of a step is of statistics that every rank has of all samples, on the host: nothing is exchanged or
    waited for but in the steps of a table.
    """

    def __init__(
        self, workers: list[Worker], beside: MetricsFile | None, table: SampleTable, configs: Sequence[TrackerConfig]
    ) -> None:
        """``beside`` takes what is shown beside the metrics, so that a start after this one can show it again."""
        self._workers = workers
        self._beside = beside
        self._table = table
        self._every = [config.table_every for config in configs]
        self._logged = 0  # step

    def on_train_start(self, trainer: Trainer) -> None:
        self._logged = trainer.step
        for worker in self._workers:
            worker.begin(trainer.step + 1)

    def on_micro_step(self, trainer: Trainer, batch: Batch) -> None:
        if self._is_due(trainer.step + 1):
            self._table.keep(batch)

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        samples = self._table.collect(trainer) if self._is_due(trainer.step) else None
        self._logged = trainer.step
        if self._beside is None:
            return
        presence = trainer.engine.presence
        line: dict[str, Any] = {"step": trainer.step}
        line["histograms"] = step_histograms(presence.step_samples, presence.step_weights)
        if samples is not None:
            line["samples"] = samples
        self._beside.on_log(trainer, line)
        figures = {name: json_value(value) for name, value in metrics.items()}
        for worker in self._workers:
            worker.put(make_line(figures, line))

    def on_checkpoint(self, trainer: Trainer) -> None:
        if self._beside is not None:
            self._beside.on_checkpoint(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        self._table.forget()

    def close(self) -> None:
        close(self._workers)
        if self._beside is not None:
            self._beside.close()

    def _is_due(self, step: int) -> bool:
        """Whether a table is to be made of ``step``, if that is logged."""
        return any(is_due(every, step, self._logged) for every in self._every)


def make_tracking(
    recipe: Recipe,
    resolved: dict[str, Any],
    corpus: Corpus,
    directory: RunDirectory,
    *,
    is_main: bool,
    warn: Callable[[str], None],
) -> Tracking | None:
    """Of the trackers that ``recipe`` enables; None if there are none. ``warn`` as of `Worker`."""
    sections: list[TrackerConfig] = [recipe.wandb, recipe.tensorboard, recipe.trackio]
    configs = [section for section in sections if section.enabled]
    if not configs:
        return None
    shows_text = any(config.table_every is not None and config.sample_text for config in configs)
    table = SampleTable(corpus.tokenizer if shows_text else None)
    if not is_main:
        return Tracking([], None, table, configs)
    trackers: list[tuple[Tracker, float | None]] = []
    if recipe.wandb.enabled:
        alerts = recipe.wandb.stall_minutes if recipe.wandb.alerts else None
        trackers.append((WandbRun(recipe.wandb, directory, warn), alerts))
    if recipe.tensorboard.enabled:
        trackers.append((TensorBoard(recipe.tensorboard, directory), None))
    if recipe.trackio.enabled:
        trackers.append((Trackio(recipe.trackio, directory, warn), None))
    shown = {**resolved, "weights": describe_weights(recipe.presence)}
    signals = recipe.stop.signal_numbers
    workers = [Worker(one, directory, shown, warn, signals, minutes) for one, minutes in trackers]
    return Tracking(workers, MetricsFile(directory.tracked), table, configs)
