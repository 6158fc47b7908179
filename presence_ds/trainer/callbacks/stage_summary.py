"""summary.json: what the weights did in each stage, and how the run ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console as RichConsole

from presence_ds.trainer.callbacks.anomalies import Anomalies
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.console import print_summary
from presence_ds.trainer.callbacks.evaluation import Evaluation
from presence_ds.trainer.callbacks.metrics_file import json_value
from presence_ds.trainer.callbacks.throughput import Throughput
from presence_ds.trainer.callbacks.worth_report import worth_figures
from presence_ds.trainer.ranks.rank_log import print_warning
from presence_ds.trainer.run_directory.layout import write_json

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer

SUMS = ("samples", "weight", "scored", "si")  # of each source


class StageSummary(Callback):
    """Adds up the statistics of every optimizer step, stage by stage and source by source."""

    def __init__(
        self,
        path: Path,
        evaluation: Evaluation | None,
        throughput: Throughput,
        anomalies: Anomalies,
        console: RichConsole,
    ) -> None:
        """``evaluation`` is None without a validation split."""
        self._path = path
        self._evaluation = evaluation
        self._throughput = throughput
        self._anomalies = anomalies
        self._console = console
        self._stages: dict[str, StageSums] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"stages": {name: stage.state_dict() for name, stage in self._stages.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stages = {name: StageSums.of_state(stage) for name, stage in state["stages"].items()}

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        statistics = trainer.engine.presence.statistics
        if "loss" not in statistics:  # a step without a sample to learn from was skipped
            return
        self._stages.setdefault(statistics["stage"], StageSums()).add(statistics, trainer.source_names)

    def on_train_end(self, trainer: Trainer) -> None:
        last = {} if self._evaluation is None else self._evaluation.last
        validation = {name: json_value(value) for name, value in last.items()}
        summary = {
            "run_dir": str(self._path.parent),
            "steps": trainer.step,
            "tokens": trainer.tokens,
            "validation_loss": validation.get("validation/loss"),
            "validation": validation,
            "tokens_per_second": self._throughput.tokens_per_second,
            "anomalies": self._anomalies.counts,
            "stages": {name: stage_means(stage) for name, stage in self.state_dict()["stages"].items()},
        }
        if (worth := trainer.engine.presence.worth) is not None:
            summary["worth"] = worth_figures(worth, trainer.source_names)
        if trainer.ranks.is_main:
            try:
                write_json(self._path, summary)
            except OSError as error:
                print_warning(f"{self._path} cannot be written ({error.strerror}); presence train writes it later")
            print_summary(self._console, summary)


@dataclass
class StageSums:
    """Sums over the steps of a stage.

    Attributes:
        names: of the sources.
        sources: [len(SUMS), sources] float64.
    """

    steps: int = 0
    effective_share: float = 0.0
    names: list[str] = field(default_factory=list)
    sources: torch.Tensor = field(default_factory=lambda: torch.zeros(len(SUMS), 0, dtype=torch.float64))

    def add(self, statistics: dict[str, Any], source_names: list[str]) -> None:
        """Add a step; its source ids count ``source_names``."""
        self.steps += 1
        self.effective_share += statistics["effective_sample_size"] / statistics["samples"]
        if self.names[: len(source_names)] != source_names:
            names = list(dict.fromkeys([*source_names, *self.names]))  # those of before a resume may be others
            sums = torch.zeros(len(SUMS), len(names), dtype=torch.float64)
            sums[:, [names.index(name) for name in self.names]] = self.sources
            self.names, self.sources = names, sums
        found = statistics["sources"].columns
        samples = found["samples"].double()
        means = found.get("si_mean", torch.full_like(samples, math.nan))  # where no gradients are scored
        scored = samples * means.isfinite()
        parts = [samples, samples * found["mean_weight"], scored, scored * means.nan_to_num(0.0, 0.0, 0.0)]
        self.sources[:, statistics["sources"].ids] += torch.stack(parts)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, of the sources that have occurred."""
        columns = zip(self.names, self.sources.T.tolist(), strict=True)
        sources = {name: dict(zip(SUMS, column, strict=True)) for name, column in columns if column[0]}
        return {"steps": self.steps, "effective_share": self.effective_share, "sources": sources}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> StageSums:
        """Take back what `state_dict` gave."""
        columns = [[source[name] for source in state["sources"].values()] for name in SUMS]
        sums = torch.tensor(columns, dtype=torch.float64)
        return cls(state["steps"], state["effective_share"], list(state["sources"]), sums)


def stage_means(stage: dict[str, Any]) -> dict[str, Any]:
    """Means over the samples of one stage; ``mean_weight`` is that of w·N, 1 for uniform weights."""
    return {
        "steps": stage["steps"],
        "mean_effective_share": stage["effective_share"] / stage["steps"],
        "sources": {
            name: {
                "samples": int(sums["samples"]),
                "mean_weight": sums["weight"] / sums["samples"],
                "mean_si": sums["si"] / sums["scored"] if sums["scored"] else None,
            }
            for name, sums in sorted(stage["sources"].items())
        },
    }
