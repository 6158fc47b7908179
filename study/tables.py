"""Tables of a study's document, made from its committed rows alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from statistics import fmean

from benchmarks.document import table
from presence_ds.trainer.report.comparison import signed
from study.arms import ARMS, BASELINE
from study.contrasts import Effect, Run, Setting, effects
from study.predictions import TELLERS, predictions
from study.probes import FIGURES
from study.rows import WORTH


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
        places = setting.text, setting.shape, str(setting.batch), str(setting.steps)
        rows.append([*places, ARMS[arm].title, *cells])
    return table(["text", "model", "batch", "steps", "arm", *(f"{rate:g}" for rate in rates)], rows)


def predictions_table(runs: Sequence[Run]) -> str:
    """What uniform runs foretold of other weights, beside what was seen."""
    found = sorted(predictions(runs), key=lambda told: (told.effect.setting, told.teller, -told.gain))
    rows = []
    for prediction in found:
        effect, error = prediction.effect, prediction.error
        rows.append(
            [
                *(effect.setting.text, effect.setting.shape, str(effect.setting.batch)),
                TELLERS[prediction.teller],
                ARMS[effect.arm].title,
                f"× {prediction.gain:.2f}" + (f" ± {error:.2f}" if error else ""),
                "" if prediction.change is None else signed(prediction.change),
                *_line(effect)[-3:],
            ]
        )
    header = ["text", "model", "batch", "good for", "arm", "gain foretold", "difference foretold"]
    return table([*header, "seen", "seeds", "verdict"], rows)


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


def probes_table(runs: Iterable[Run]) -> str:
    """How far figures of samples tell noise from clean text, in the uniform runs of a text."""
    found: dict[tuple[str, str, str], list[Mapping[str, float]]] = {}
    for run in runs:
        for name, figures in run.aucs.items():
            found.setdefault((run.cell.text, run.cell.shape, name), []).append(figures)
    rows = [
        [text, shape, name, *(f"{fmean(one[figure] for one in aucs):.2f}" for figure in FIGURES), str(len(aucs))]
        for (text, shape, name), aucs in sorted(found.items())
    ]
    return table(["text", "model", "noise", "self-influence", "loss", "alignment", "runs"], rows)


def tenths_table(runs: Sequence[Run]) -> str:
    """Differences of the loss of every tenth of the targets, each arm at its best rate."""
    rows = []
    for effect in sorted(effects(runs), key=lambda effect: (effect.setting, effect.mean)):
        here = [run for run in runs if run.setting == effect.setting and run.tenths]
        ours, theirs = (
            {run.cell.seed: run.tenths for run in here if (run.cell.arm, run.cell.rate) == chosen}
            for chosen in ((effect.arm, effect.rate), (BASELINE, effect.baseline_rate))
        )
        seeds = ours.keys() & theirs.keys()
        if seeds:
            means = (fmean(ours[seed][tenth] - theirs[seed][tenth] for seed in seeds) for tenth in range(1, 11))
            rows.append([effect.setting.text, effect.setting.shape, ARMS[effect.arm].title, *map(signed, means)])
    return table(["text", "model", "arm", *map(str, range(1, 11))], rows)


def weights_table(runs: Sequence[Run]) -> str:
    """Mean weight that every arm gave to the samples of each source, at its best rate; 1 is uniform."""
    found: dict[tuple[Setting, str], Mapping[str, float]] = {}
    for effect in effects(runs):
        here = [run for run in runs if run.setting == effect.setting and run.cell.arm == effect.arm]
        best = [run.weights for run in here if run.cell.rate == effect.rate and run.weights]
        names = sorted({name for weights in best for name in weights})
        found[effect.setting, effect.arm] = {
            name: fmean(weights[name] for weights in best if name in weights) for name in names
        }
    names = list(dict.fromkeys(name for weights in found.values() for name in weights))
    rows = [
        [
            *(setting.text, setting.shape),
            ARMS[arm].title,
            *(f"{weights[name]:.2f}" if name in weights else "" for name in names),
        ]
        for (setting, arm), weights in sorted(found.items())
        if any(abs(weight - 1.0) > 0.005 for weight in weights.values())
    ]
    return table(["text", "model", "arm", *names], rows)


TABLES: dict[str, Callable[[Sequence[Run]], str]] = {
    "effects": effects_table,
    "predictions": predictions_table,
    "sources": sources_table,
    "weights": weights_table,
    "probes": probes_table,
    "tenths": tenths_table,
    "rates": rates_table,
}
