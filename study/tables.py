"""Tables of a study's document, made from its committed rows alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import fmean

from benchmarks.document import table
from presence_ds.trainer.report.comparison import signed
from study.arms import ARMS, BASELINE
from study.contrasts import Effect, Run, Setting, effects
from study.plan import Cell
from study.predictions import predictions
from study.results import CELL, read_tables
from study.rows import WORTH


def runs_of(folder: Path) -> list[Run]:
    """The runs of ``rows.csv``; one that diverged has an infinite loss."""
    return [_run(line) for line in read_tables(folder)[0]]


def _run(line: Mapping[str, str]) -> Run:
    gains, errors = _under("gain/", line), _under("gain_error/", line)
    shares, norms, alignments = (_under(f"{figure}/", line) for figure in WORTH)
    return Run(
        _cell(line),
        float(line["loss"]) if line["loss"] else inf,
        float(line["noise_scale"]) if line["noise_scale"] else None,
        {name: (gain, errors[name]) for name, gain in gains.items()},
        {name: dict(zip(WORTH, (share, norms[name], alignments[name]), strict=True)) for name, share in shares.items()},
    )


def _under(prefix: str, line: Mapping[str, str]) -> dict[str, float]:
    """What the columns with ``prefix`` say, where they say something."""
    return {name.removeprefix(prefix): float(text) for name, text in line.items() if name.startswith(prefix) and text}


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


def predictions_table(runs: Sequence[Run]) -> str:
    """What uniform runs foretold of other weights, beside what was seen."""
    found = sorted(predictions(runs), key=lambda prediction: (prediction.effect.setting, -prediction.gain))
    rows = []
    for prediction in found:
        effect = prediction.effect
        gain = f"× {prediction.gain:.2f}" + (f" ± {prediction.error:.2f}" if prediction.error else "")
        foretold = "" if prediction.change is None else signed(prediction.change)
        seen = [*_line(effect)[-3:]]
        rows.append(
            [effect.setting.text, effect.setting.shape, str(effect.setting.batch), ARMS[effect.arm].title, gain]
        )
        rows[-1] += [foretold, *seen]
    header = ["text", "model", "batch", "arm", "gain foretold", "difference foretold", "seen", "seeds", "verdict"]
    return table(header, rows)


def sources_table(runs: Iterable[Run]) -> str:
    """What every source was worth in the uniform runs of a text (docs/value.md)."""
    found: dict[tuple[str, str, str], list[Mapping[str, float]]] = {}
    for run in runs:
        if run.cell.arm == BASELINE:
            for name, figures in run.worth.items():
                found.setdefault((run.cell.text, run.cell.shape, name), []).append(figures)
    rows = []
    for (text, shape, name), worths in sorted(found.items()):
        share, norm, alignment = (fmean(worth[figure] for worth in worths) for figure in WORTH)
        rows.append([text, shape, name, f"{share:.1%}", f"{norm:.2f}", f"{alignment:.2f}", f"{alignment / norm:.2f}"])
    return table(["text", "model", "source", "share", "n", "a", "a/n"], rows)


TABLES: dict[str, Callable[[Sequence[Run]], str]] = {
    "effects": effects_table,
    "predictions": predictions_table,
    "sources": sources_table,
    "rates": rates_table,
}
