"""Groups of runs over seeds: mean curves, and paired differences of their validation losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from presence_ds.trainer.report.configuration import (
    Configuration,
    group_names,
    grouped,
    is_apart,
    is_seed,
    is_uniform,
    seeds_of,
)
from presence_ds.trainer.report.curves import mean_curve
from presence_ds.trainer.report.figures import Comparison, Curve, Group, RunFigures
from presence_ds.trainer.report.plain import plain
from presence_ds.trainer.report.student import critical

TOLERANCE = 0.01  # nats
MOST_SOURCES = 16  # whose validation losses are compared


def groups_of(runs: Sequence[RunFigures]) -> list[Group]:
    """Groups, those with uniform weights first, otherwise in the order of their first runs."""
    places = grouped([run.configuration for run in runs])
    places.sort(key=lambda members: not is_uniform(runs[members[0]].configuration))
    names = group_names([runs[members[0]].configuration for members in places])
    return [
        Group(
            name=name,
            runs=members,
            weights=runs[members[0]].weights,
            curves=_mean_curves([runs[place].curves for place in members]),
            validation=_mean_curves([runs[place].validation for place in members]),
        )
        for name, members in zip(names, places, strict=True)
    ]


def _mean_curves(curves: Sequence[dict[str, Curve]]) -> dict[str, Curve]:
    """Of every figure, over the runs that have it."""
    found = {}
    for name in dict.fromkeys(name for one in curves for name in one):
        found[name] = mean_curve([one[name] for one in curves if name in one and one[name].step] or [Curve()])
    return {name: curve for name, curve in found.items() if curve.step}


def comparisons_of(
    runs: Sequence[RunFigures], groups: Sequence[Group], tolerance: float = TOLERANCE
) -> list[Comparison]:
    """Every group against the one with uniform weights that is most like it, of those with the most seeds in common.

    Without uniform weights it is against the first.

    Of the whole validation split, and of its sources where there are several; nothing where no seed is in both.
    """
    found: list[Comparison] = []
    members = [[runs[number] for number in group.runs] for group in groups]
    for place in range(len(groups)):
        baseline = _baseline(place, members)
        if baseline is None:
            continue
        ours, theirs = ({source for run in members[one] for source in run.validation} for one in (place, baseline))
        sources = sorted(ours & theirs)
        if len(sources) == 2:  # all of it, and the one source that it is made of
            sources = sources[:1]
        for source in sources[: MOST_SOURCES + 1]:
            compared = _compared(members, groups, place, baseline, source, tolerance)
            if compared is not None:
                found.append(compared)
    return found


def _baseline(place: int, members: Sequence[Sequence[RunFigures]]) -> int | None:
    """What the group ``place`` is compared with."""
    configurations = [runs[0].configuration for runs in members]
    uniform = [other for other, one in enumerate(configurations) if one and is_uniform(one)]
    if place in uniform:
        return uniform[0] if place != uniform[0] else None
    if not uniform:
        return 0 if place else None
    seeds = [{seeds_of(run.configuration) for run in runs} for runs in members]
    return min(
        uniform,
        key=lambda other: (
            _distance(configurations[place], configurations[other]),
            -len(seeds[place] & seeds[other]),
        ),
    )


def _distance(one: Configuration, other: Configuration) -> int:
    """Number of fields in which they differ, of those that change what is learned, but for weights and seeds."""
    names = {name for name in {*one, *other} if not (name.startswith("presence.") or is_seed(name) or is_apart(name))}
    return sum(one.get(name) != other.get(name) for name in names)


def _compared(
    members: Sequence[Sequence[RunFigures]],
    groups: Sequence[Group],
    place: int,
    baseline: int,
    source: str,
    tolerance: float,
) -> Comparison | None:
    """At the last step at which all of the paired runs were evaluated."""
    ours, theirs = (_by_seeds(members[one], source) for one in (place, baseline))
    pairs = [(ours[seeds], theirs[seeds]) for seeds in sorted(set(ours) & set(theirs), key=str)]
    paired = [run for pair in pairs for side in pair for run in side]
    steps = set.intersection(*(set(run.validation[source].step) for run in paired)) if paired else set()
    if not steps:
        return None
    step = max(steps)
    differences = [_at(one, source, step) - _at(other, source, step) for one, other in pairs]
    difference, low, high, verdict = judged(differences, tolerance)
    figure = f"validation/{source}/loss" if source else "validation/loss"
    text = _words(
        groups[place].name, groups[baseline].name, source, _when(paired, source, step), differences, tolerance
    )
    return Comparison(
        group=place,
        baseline=baseline,
        figure=figure,
        seeds=[one[0].seed for one, _ in pairs if one[0].seed is not None],
        differences=[round(one, 6) for one in differences],
        difference=round(difference, 6),
        low=plain(low),
        high=plain(high),
        tolerance=tolerance,
        verdict=verdict,
        words=text,
    )


def _by_seeds(runs: Sequence[RunFigures], source: str) -> dict[tuple[Any, ...], list[RunFigures]]:
    """Those that were evaluated on the source."""
    found: dict[tuple[Any, ...], list[RunFigures]] = {}
    for run in runs:
        if source in run.validation:
            found.setdefault(seeds_of(run.configuration), []).append(run)
    return found


def _at(runs: Sequence[RunFigures], source: str, step: int) -> float:
    """The loss at the step, mean of runs of one seed."""
    curves = [run.validation[source] for run in runs]
    losses = (curve.mean[curve.step.index(step)] for curve in curves)
    return fmean(loss for loss in losses if loss is not None)  # a curve has none that is None


def _when(paired: Sequence[RunFigures], source: str, step: int) -> str:
    """The step, where runs went on after it; and how many did not: they are in progress, stopped, or diverged."""
    ended = sum(run.validation[source].step[-1] == step for run in paired)
    if ended == len(paired):
        return ""
    without = (
        f", as {ended} of {len(paired)} runs {'has' if ended == 1 else 'have'} no finite loss later" if ended else ""
    )
    return f" at step {step:,}, the last at which all were evaluated{without}"


def judged(differences: Sequence[float], tolerance: float) -> tuple[float, float | None, float | None, str]:
    """Mean, ends of the 95 % interval and verdict, as of `Comparison`."""
    mean = fmean(differences)
    if len(differences) == 1:
        return mean, None, None, "one seed"
    half = critical(len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    low, high = mean - half, mean + half
    if -tolerance <= low and high <= tolerance:
        return mean, low, high, "equivalent"
    return mean, low, high, "better" if high < 0 else "worse" if low > 0 else "open"


def _words(name: str, other: str, source: str, when: str, differences: Sequence[float], tolerance: float) -> str:
    mean, low, high, verdict = judged(differences, tolerance)
    of = f" of {source}" if source else ""
    text = f"{name} against {other}: validation loss{of} {signed(mean)} nats{when}"
    if low is None or high is None:
        return f"{text}, with one pair of runs of the same seed, which allows no verdict: train with more seeds."
    told: dict[str, Any] = {
        "better": "better",
        "worse": "worse",
        "equivalent": f"equivalent, within ± {tolerance:g} nats",
        "open": f"open, neither a difference nor equivalence within ± {tolerance:g} nats is shown",
    }
    return f"{text} (95 % interval {signed(low)} to {signed(high)}, {len(differences)} paired seeds): {told[verdict]}."


def signed(value: float) -> str:
    """A difference of losses."""
    return f"{value:+.4f}".replace("-", "−")
