"""The summary of a report: what ran, how it went, whether the weights helped, what to look at."""

from __future__ import annotations

from collections.abc import Sequence

from presence_ds.trainer.report.configuration import seeds_of
from presence_ds.trainer.report.figures import Comparison, Group, RunFigures, Sentence, WeightsWorth, Worth
from presence_ds.trainer.report.looks import looks_at
from presence_ds.trainer.report.worth import mean_worth


def summary_of(
    runs: Sequence[RunFigures], groups: Sequence[Group], comparisons: Sequence[Comparison]
) -> list[Sentence]:
    """In the order in which it is read."""
    return [
        *_what_ran(runs, groups),
        *_how_it_went(runs, groups),
        *_whether(runs, groups, comparisons),
        *looks_at(runs),
    ]


def _what_ran(runs: Sequence[RunFigures], groups: Sequence[Group]) -> list[Sentence]:
    if len(runs) == 1:
        return [Sentence(_ran(runs[0]), run=0)]
    alike = "that differ in nothing but seeds" if len(groups) == 1 else f"in {len(groups)} groups"
    found = [Sentence(f"{len(runs)} runs {alike}.")]
    for group in groups:
        members = [runs[place] for place in group.runs]
        if len(members) == 1:
            found.append(Sentence(_ran(members[0]), run=group.runs[0]))
            continue
        steps = sorted({run.step for run in members})
        done = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        states = [
            f"{sum(run.state == state for run in members)} {state}" for state in dict.fromkeys(r.state for r in members)
        ]
        found.append(_sentence(f"{group.name}: {len(members)} runs, {', '.join(states)}, of {done} steps."))
    return found


def _sentence(text: str, level: str = "told", about: str = "", run: int | None = None) -> Sentence:
    """One that begins with a word, and not with a name."""
    return Sentence(text[:1].upper() + text[1:], level, about, run)  # type: ignore[arg-type]


def _ran(run: RunFigures) -> str:
    """One run, in one sentence."""
    of = f" of {run.total_steps:,}" if run.total_steps is not None and run.total_steps != run.step else ""
    parts = [f"{run.weights}, {run.step:,}{of} steps"]
    if run.tokens is not None:
        parts.append(f"{run.tokens:,} tokens")
    if run.hours is not None:
        parts.append(f"{_time(float(run.hours))} of training")
    if run.cost.tokens_per_second is not None:
        parts.append(f"{run.cost.tokens_per_second:,.0f} tokens/s")
    told = f" ({run.told})" if run.told and run.state in ("stopped", "dead", "unknown") else ""
    return (
        f"{run.label} is {run.state}{told}: {', '.join(parts)}."
        if run.step
        else f"{run.label} is {run.state}{told}: it has logged no step."
    )


def _time(hours: float) -> str:
    if hours >= 2:
        return f"{hours:,.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours * 60 >= 2 else f"{hours * 3600:.0f} seconds"


def _how_it_went(runs: Sequence[RunFigures], groups: Sequence[Group]) -> list[Sentence]:
    found = []
    for group in groups:
        name = f"{group.name}: " if len(groups) > 1 else ""
        parts = []
        loss = group.curves.get("loss")
        if loss is not None and len(loss.step) > 1:
            parts.append(f"the training loss went from {loss.mean[0]:.3f} to {loss.mean[-1]:.3f}")
        validation = group.validation.get("")
        if validation is not None:
            mean, low, high = validation.mean[-1], validation.low[-1], validation.high[-1]
            evaluated = [runs[place] for place in group.runs if "" in runs[place].validation]
            among = f" ({low:.4f} to {high:.4f} over {_seeds(evaluated)})" if len(evaluated) > 1 else ""
            parts.append(f"the validation loss at step {validation.step[-1]:,} is {mean:.4f}{among}")
        if parts:
            text = " and ".join(parts)
            found.append(_sentence(f"{name}{text}.", about="loss"))
    return found


def _seeds(runs: Sequence[RunFigures]) -> str:
    """How many there are, and of runs of one seed how many runs."""
    seeds = len({seeds_of(run.configuration) for run in runs})
    return f"{seeds} seeds" if seeds == len(runs) else f"{len(runs)} runs of {seeds} seed{'s' if seeds > 1 else ''}"


def _whether(runs: Sequence[RunFigures], groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[Sentence]:
    """Whether the weights helped, as far as runs are compared; and what they are expected to be worth."""
    levels = {"better": "good", "worse": "bad"}
    found = [
        _sentence(one.words, levels.get(one.verdict, "told"), "validation")
        for one in comparisons
        if one.figure == "validation/loss"
    ]
    for group in groups:
        known = [(place, worth) for place in group.runs if (worth := runs[place].worth) is not None]
        if known:
            place = known[0][0]
            name = group.name if len(groups) > 1 else ""
            found.append(_expected(runs[place], mean_worth([worth for _, worth in known]), len(known), place, name))
    return found


def _expected(run: RunFigures, worth: Worth, number: int, place: int, name: str) -> Sentence:
    """What weights are worth, the mean of ``number`` runs like ``run``, beside the best of those always compared."""
    used = next((one for one in worth.weights if one.name == "in_use"), None)
    others = [one for one in worth.weights if one.name not in ("in_use", "uniform") and one.gain is not None]
    best = max(others, key=lambda one: one.gain or 0.0, default=None)
    over = f"over steps {worth.first_step:,} to {worth.last_step:,}"
    parts = [part for part in (name, f"mean of {number} runs" if number > 1 else "") if part]
    prefix = f"{', '.join(parts)}: " if parts else ""
    level = "told"
    if used is None or used.gain is None or run.weights.startswith("uniform"):
        if best is None:
            text = f"{prefix}uniform weights were in use {over}, and what others are worth is not known"
        else:
            text = f"{prefix}{best.words} would have been worth × {_gain(best)} in batch size {over}, the most of those"
            text += " that were compared"
        best = None
    else:
        low, high = _ends(used)
        level = "told" if low is None or high is None else "good" if low > 1 else "bad" if high < 1 else "told"
        text = f"{prefix}the weights in use are expected to be worth × {_gain(used)} in batch size {over}"
        if used.error == 0.0 and used.gain == 1.0:
            text += ", as they were uniform"
        elif level == "told" and low is not None:
            text += ", which may be nothing"
    if best is not None and best.gain is not None and (used is None or best.gain > (used.gain or 0.0) or not used):
        text += f"; the best of those compared, {best.words}, × {_gain(best)}"
    if worth.noise_scale is not None and run.samples_per_step:
        text += f" (noise scale {worth.noise_scale:,.0f} samples, {run.samples_per_step:,.0f} in a step)"
    return _sentence(f"{text}.", level, "worth", place)


def _ends(one: WeightsWorth) -> tuple[float | None, float | None]:
    """Of the 95 % interval."""
    if one.gain is None or one.error is None:
        return None, None
    return one.gain - 1.96 * one.error, one.gain + 1.96 * one.error


def _gain(one: WeightsWorth) -> str:
    low, high = _ends(one)
    told = f"{one.gain:.2f}"
    return told if low is None or high is None else f"{told} (95 % interval {low:.2f} to {high:.2f})"
