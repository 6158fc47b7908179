"""What to look at in runs: what went wrong, which data stands out, what costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from presence_ds.reweighting.update_share import OUTSIZED
from presence_ds.trainer.report.figures import Level, RunFigures, Sentence

MOST_RUNS = 3  # that are named
LEAST_SHARE = 0.001  # of the samples, of a source that is worth a word
LOW_EFFECTIVE_SHARE = 0.3
WAITING, OUTSIDE, SCORING = 0.1, 0.25, 0.5  # shares of the time, above which they are worth a word
RISE, ROUGHNESS = 0.02, 3.0  # of validation loss above its least: nats, and usual changes between evaluations
WRONG = {  # counts: what they are, how bad it is
    "nonfinite_steps": ("steps with samples that were not finite and were left out", "bad"),
    "skipped_steps": ("skipped steps", "bad"),
    "loss_spikes": ("spikes of the loss", "look"),
    "gradient_spikes": ("spikes of the gradient norm", "look"),
    "samples_without_targets": ("samples without a target in the logged steps", "look"),
}


class Look(NamedTuple):
    """Something to look at in a run.

    Attributes:
        what: the same in every run that has it.
        detail: of this run.
    """

    what: str
    detail: str
    level: Level
    about: str


def looks_at(runs: Sequence[RunFigures]) -> list[Sentence]:
    """What is alike in several runs in one sentence; what is bad first."""
    found: dict[tuple[str, Level, str], list[tuple[int, str]]] = {}
    for place, run in enumerate(runs):
        for look in _looks(run):
            found.setdefault((look.what, look.level, look.about), []).append((place, look.detail))
    sentences = []
    for (what, level, about), places in sorted(found.items(), key=lambda item: item[0][1] != "bad"):
        if len(runs) == 1:
            text = f"{what}: {places[0][1]}."
        else:
            named = [f"{runs[place].label} ({detail})" for place, detail in places[:MOST_RUNS]]
            more = f" and {len(places) - MOST_RUNS} more of {len(runs)} runs" if len(places) > MOST_RUNS else ""
            text = f"{what}: {', '.join(named)}{more}."
        sentences.append(Sentence(text[:1].upper() + text[1:], level, about, places[0][0]))
    return sentences


def _looks(run: RunFigures) -> Iterator[Look]:
    if run.state == "dead":
        yield Look("a run neither lives nor has finished", run.told, "bad", "stability")
    for name, (what, level) in WRONG.items():
        if run.counts.get(name):
            first = next((event.step for event in run.events if event.kind == name), None)
            since = f", the first by step {first:,}" if first is not None else ""
            yield Look(what, f"{run.counts[name]:,}{since}", level, "stability")  # type: ignore[arg-type]
    yield from _of_loss(run)
    yield from _of_sources(run)
    if run.effective_share is not None and run.effective_share < LOW_EFFECTIVE_SHARE:
        yield Look(
            "weights leave few samples to learn from",
            f"a mean effective sample size of {run.effective_share:.0%} of the samples",
            "look",
            "distributions",
        )
    if run.extremes:
        yield Look(
            "documents that are among the top percent of self-influences in every epoch",
            f"{len(run.extremes)} are shown, such as {run.extremes[0].document_id} of {run.extremes[0].source}, "
            f"seen {run.extremes[0].times} times",
            "look",
            "extremes",
        )
    yield from _of_cost(run)


def _of_loss(run: RunFigures) -> Iterator[Look]:
    spikes = [step.step for step in run.moved if step.why == "spike"]
    if spikes:
        named = ", ".join(f"{step:,}" for step in spikes[:5]) + (", …" if len(spikes) > 5 else "")
        yield Look("steps whose loss is far above that of the steps around", named, "look", "moved")
    validation = run.validation.get("")
    values = [] if validation is None else [value for value in validation.mean if value is not None]
    changes = [abs(after - before) for before, after in pairwise(values)]
    if changes and values[-1] > min(values) + max(RISE, ROUGHNESS * median(changes)):
        assert validation is not None
        step = validation.step[validation.mean.index(min(values))]
        yield Look(
            "the validation loss has risen from its least",
            f"{min(values):.4f} at step {step:,}, {values[-1]:.4f} at the end",
            "look",
            "validation",
        )


def _of_sources(run: RunFigures) -> Iterator[Look]:
    for source in run.sources:
        if source.verdict == "drop":
            error = "" if source.error is None else f" ± {source.error:.2f}"
            yield Look(
                f"source {source.name} is not worth its noise, and leaving it out is expected to help",
                f"worth by noise {source.worth:.2f}{error}, below 0.5",
                "look",
                "sources",
            )
        share, moved = source.share_of_samples, source.share_of_update
        if moved is not None and share >= LEAST_SHARE and (source.times_share or 0.0) > OUTSIZED:
            yield Look(
                f"source {source.name} moves the model far more than its share",
                f"{moved:.1%} of the update with {share:.1%} of the samples",
                "look",
                "sources",
            )


def _of_cost(run: RunFigures) -> Iterator[Look]:
    cost = run.cost
    if cost.data_wait_share is not None and cost.data_wait_share > WAITING:
        yield Look("steps wait for data", f"{cost.data_wait_share:.0%} of the time", "look", "cost")
    if cost.outside_share is not None and cost.outside_share > OUTSIDE:
        yield Look(
            "much time is spent on evaluation, checkpoints and logging", f"{cost.outside_share:.0%}", "look", "cost"
        )
    if cost.scoring_share is not None and cost.scoring_share > SCORING:
        yield Look("scoring takes much of a step", f"{cost.scoring_share:.0%}", "look", "cost")
