"""What rows say: every arm beside uniform weights, each at its own best learning rate, seed by seed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import fmean
from typing import NamedTuple

from presence_ds.trainer.report.comparison import judged
from study.arms import BASELINE
from study.plan import Cell

EQUIVALENT = 0.002  # of the loss: what counts as the same


class Setting(NamedTuple):
    """What arms are compared at."""

    text: str
    shape: str
    batch: int
    steps: int


@dataclass(frozen=True)
class Run:
    """What is kept of one.

    Attributes:
        cell: what it was.
        loss: clean validation loss it ended at; infinite for one that diverged.
        noise_scale, gains, worth, aucs, tenths, weights: as of `study.rows.Row`, where they were measured.
    """

    cell: Cell
    loss: float
    noise_scale: float | None = None
    gains: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    worth: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    aucs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tenths: Mapping[int, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        """Where it is to be compared."""
        return Setting(self.cell.text, self.cell.shape, self.cell.batch, self.cell.steps)


@dataclass(frozen=True)
class Effect:
    """An arm beside the baseline at one setting.

    Attributes:
        rate, baseline_rate: at which the mean loss of either is lowest.
        losses: mean of the arm's, and of the baseline's, over the seeds that both have.
        differences: by seed, the arm's less the baseline's, in nats.
        mean, low, high: of the differences, with a 95 % interval; no interval with one seed.
        verdict: better, worse, equivalent, open, or one seed.
    """

    setting: Setting
    arm: str
    rate: float
    baseline_rate: float
    losses: tuple[float, float]
    differences: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    verdict: str


def effects(runs: Sequence[Run], baseline: str = BASELINE) -> Iterator[Effect]:
    """Of every arm at every setting where there is a seed that the baseline has too."""
    for setting in dict.fromkeys(run.setting for run in runs):
        here = [run for run in runs if run.setting == setting]
        arms = dict.fromkeys(run.cell.arm for run in here)
        if baseline not in arms:
            continue
        best = {arm: best_runs(run for run in here if run.cell.arm == arm) for arm in arms}
        reference = {run.cell.seed: run.loss for run in best[baseline]}
        for arm in arms:
            losses = {run.cell.seed: run.loss for run in best[arm]}
            seeds = sorted(losses.keys() & reference.keys())
            if arm == baseline or not seeds:
                continue
            differences = tuple(losses[seed] - reference[seed] for seed in seeds)
            means = fmean(losses[seed] for seed in seeds), fmean(reference[seed] for seed in seeds)
            rates = best[arm][0].cell.rate, best[baseline][0].cell.rate
            found = (inf, None, None, "worse") if inf in differences else judged(differences, EQUIVALENT * means[1])
            mean, low, high, verdict = found
            yield Effect(setting, arm, *rates, means, differences, mean, low, high, verdict)


def best_runs(runs: Iterable[Run]) -> list[Run]:
    """Those at the rate whose mean loss is lowest, of the rates that most seeds have."""
    by_rate: dict[float, list[Run]] = {}
    for run in runs:
        by_rate.setdefault(run.cell.rate, []).append(run)
    if not by_rate:
        return []
    most = max(map(len, by_rate.values()))
    complete = {rate: found for rate, found in by_rate.items() if len(found) == most}
    return min(complete.values(), key=lambda found: fmean(run.loss for run in found))
