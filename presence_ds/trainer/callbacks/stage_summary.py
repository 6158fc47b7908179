"""summary.json: what the weights did in each stage, and how the run ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.trainer.callbacks.anomalies import Anomalies
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.evaluation import Evaluation
from presence_ds.trainer.callbacks.metrics_file import json_value
from presence_ds.trainer.callbacks.throughput import Throughput
from presence_ds.trainer.run_directory import write_json

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer


class StageSummary(Callback):
    """Adds up the statistics of every optimizer step, stage by stage and source by source."""

    def __init__(
        self,
        path: Path,
        evaluation: Evaluation | None,
        throughput: Throughput,
        anomalies: Anomalies,
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        """``evaluation`` is None without a validation split; ``show`` prints the summary of a finished run."""
        self._path = path
        self._evaluation = evaluation
        self._throughput = throughput
        self._anomalies = anomalies
        self._show = show
        self._stages: dict[str, dict[str, Any]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"stages": self._stages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stages = state["stages"]

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        statistics = trainer.engine.presence.statistics
        if "loss" not in statistics:  # a step without a sample to learn from was skipped
            return
        empty: dict[str, Any] = {"steps": 0, "effective_share": 0.0, "sources": {}}
        stage = self._stages.setdefault(statistics["stage"], empty)
        stage["steps"] += 1
        stage["effective_share"] += statistics["effective_sample_size"] / statistics["samples"]
        for source_id, source in statistics["sources"].items():
            name = trainer.source_names[source_id]
            sums = stage["sources"].setdefault(name, {"samples": 0, "weight": 0.0, "scored": 0, "si": 0.0})
            sums["samples"] += source["samples"]
            sums["weight"] += source["samples"] * source["mean_weight"]
            if math.isfinite(source.get("si_mean", math.nan)):  # signal loss has none
                sums["scored"] += source["samples"]
                sums["si"] += source["samples"] * source["si_mean"]

    def on_train_end(self, trainer: Trainer) -> None:
        last = {} if self._evaluation is None else self._evaluation.last
        validation = {name: json_value(value) for name, value in last.items()}
        summary = {
            "run_dir": str(self._path.parent),
            "steps": trainer.step,
            "tokens": trainer.tokens,
            "validation_loss": validation.get("validation/loss"),
            "validation": validation,
            "tokens_per_second": self._throughput.tokens_per_second(trainer.tokens_per_step),
            "anomalies": self._anomalies.counts,
            "stages": {name: stage_means(stage) for name, stage in self._stages.items()},
        }
        if trainer.ranks.is_main:
            write_json(self._path, summary)
            self._show(summary)


def stage_means(stage: dict[str, Any]) -> dict[str, Any]:
    """Means over the samples of one stage; ``mean_weight`` is that of w·N, 1 for uniform weights."""
    return {
        "steps": stage["steps"],
        "mean_effective_share": stage["effective_share"] / stage["steps"],
        "sources": {
            name: {
                "samples": sums["samples"],
                "mean_weight": sums["weight"] / sums["samples"],
                "mean_si": sums["si"] / sums["scored"] if sums["scored"] else None,
            }
            for name, sums in sorted(stage["sources"].items())
        },
    }
