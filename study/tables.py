"""Tables of a study's document, made from its committed rows alone."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path

from benchmarks.document import table
from presence_ds.trainer.report.comparison import signed
from study.arms import ARMS
from study.contrasts import Effect, Run, Setting, effects
from study.plan import Cell
from study.results import CELL, read_tables


def runs_of(folder: Path) -> list[Run]:
    """The runs of ``rows.csv``; one that diverged has an infinite loss."""
    lines, _ = read_tables(folder)
    return [Run(_cell(line), float(line["loss"]) if line["loss"] else inf) for line in lines]


def _cell(line: Mapping[str, str]) -> Cell:
    kinds = Cell.__annotations__
    return Cell(**{name: kinds[name](line[name]) for name in CELL})


def effects_table(runs: Sequence[Run]) -> str:
    """Every arm beside uniform weights, setting by setting, best first."""
    found = sorted(effects(runs), key=lambda effect: (effect.setting, effect.mean))
    header = ["text", "model", "batch", "steps", "arm", "rate", "loss", "uniform", "difference", "seeds", "verdict"]
    return table(header, [_line(effect) for effect in found])


def _line(effect: Effect) -> list[str]:
    setting: Setting = effect.setting
    difference = "diverged" if effect.mean == inf else signed(effect.mean)
    if effect.low is not None and effect.high is not None:
        difference += f" ({signed(effect.low)} to {signed(effect.high)})"
    losses = (f"{loss:.3f}" for loss in effect.losses)
    places = setting.text, setting.shape, str(setting.batch), str(setting.steps)
    return [
        *places,
        ARMS[effect.arm].title,
        f"{effect.rate:g}",
        *losses,
        difference,
        str(len(effect.differences)),
        effect.verdict,
    ]


def rates_table(runs: Iterable[Run]) -> str:
    """Mean loss of every arm at every learning rate."""
    found: dict[tuple[Setting, str], dict[float, list[float]]] = {}
    for run in runs:
        found.setdefault((run.setting, run.cell.arm), {}).setdefault(run.cell.rate, []).append(run.loss)
    rates = sorted({rate for losses in found.values() for rate in losses})
    rows = []
    for (setting, arm), losses in sorted(found.items()):
        cells = [f"{sum(losses[rate]) / len(losses[rate]):.3f}" if rate in losses else "" for rate in rates]
        rows.append([setting.text, setting.shape, str(setting.batch), ARMS[arm].title, *cells])
    return table(["text", "model", "batch", "arm", *(f"{rate:g}" for rate in rates)], rows)
