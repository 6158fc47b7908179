"""What runs with uniform weights foretold of other arms, beside what those ended at."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, stdev

from study.arms import ARMS, BASELINE, CLEAN
from study.contrasts import Effect, Run, Setting, best_runs, effects
from study.texts import TEXTS

TELLERS = {  # runs with uniform weights, and what they take samples to be good for
    BASELINE: "the text as it is",
    "uniform-reference": "the trusted source",
}


@dataclass(frozen=True)
class Prediction:
    """Of an arm at one setting, by the uniform runs at their best rate.

    Attributes:
        teller: of `TELLERS`, the arm of the runs.
        gain, error: of its weights, in batch size (docs/value.md): mean over the runs, and its standard error.
        change: in the loss at the end, in nats, that follows; None where lengths of training were not compared.
        effect: what was seen.
    """

    teller: str
    gain: float
    error: float
    change: float | None
    effect: Effect


def predictions(runs: Sequence[Run]) -> Iterator[Prediction]:
    """Of every arm that `presence gain` has a figure for, or that leaves sources out, at every setting it has."""
    for effect, teller in product(list(effects(runs)), TELLERS):
        uniform = best_runs(run for run in runs if run.setting == effect.setting and run.cell.arm == teller)
        told = [found for run in uniform if (found := _gain(run, effect.arm)) is not None]
        scales = [run.noise_scale for run in uniform if run.noise_scale is not None]
        if not told or not scales:
            continue
        gain, error = mean_and_error(told)
        lengths = slope(runs, effect.setting)
        batch = effect.setting.batch
        change = None if lengths is None else lengths * math.log(speedup(gain, fmean(scales), batch))
        yield Prediction(teller, gain, error, change, effect)


def speedup(gain: float, noise_scale: float, batch: int) -> float:
    """How many times fewer steps do as well, with weights that are worth ``gain`` times the batch."""
    return (1.0 + noise_scale / batch) / (1.0 + noise_scale / (gain * batch))


def gain_without(worth: Mapping[str, Mapping[str, float]], sources: Sequence[str]) -> float:
    """Gain of leaving ``sources`` out: (Σ s a)² / Σ s n over what is left, that of all samples being 1.

    ``worth`` has every source's share s, squared norm n and alignment a, these in units of the mean of all.
    """
    left = [figures for name, figures in worth.items() if name not in sources]
    signal = sum(figures["share"] * figures["alignment"] for figures in left)
    noise = sum(figures["share"] * figures["norm"] for figures in left)
    return signal**2 / noise


def slope(runs: Sequence[Run], setting: Setting) -> float | None:
    """Change of the uniform loss at the end with the logarithm of the number of steps, from runs of several lengths.

    Of the text of ``setting``; where it was trained at one length alone, the mean of other texts.
    """
    found: dict[str, float] = {}
    alike = [run for run in runs if run.cell.arm == BASELINE and run.setting[1:3] == setting[1:3]]
    for text in dict.fromkeys(run.cell.text for run in alike):
        points = []
        for steps in {run.cell.steps for run in alike if run.cell.text == text}:
            best = best_runs(run for run in alike if (run.cell.text, run.cell.steps) == (text, steps))
            points += [(math.log(steps), run.loss) for run in best if math.isfinite(run.loss)]
        if len({x for x, _ in points}) > 1:
            found[text] = _regression(points)
    return found.get(setting.text, fmean(found.values()) if found else None)


def mean_and_error(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of values with errors, and its standard error by their spread; of one its own error."""
    if len(values) == 1:
        return values[0]
    means = [mean for mean, _ in values]
    return fmean(means), stdev(means) / math.sqrt(len(means))


def _gain(run: Run, arm: str) -> tuple[float, float] | None:
    if arm == CLEAN and run.worth:
        return gain_without(run.worth, list(TEXTS[run.cell.text].noise)), 0.0
    name = ARMS[arm].gain
    return None if name is None else run.gains.get(name)


def _regression(points: Sequence[tuple[float, float]]) -> float:
    x, y = fmean(point[0] for point in points), fmean(point[1] for point in points)
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
