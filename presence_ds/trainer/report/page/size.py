"""A report that makes a page of bounded size."""

from collections.abc import Iterator
from dataclasses import replace

from presence_ds.trainer.report.figures import Report, RunFigures

MOST_BYTES = 8_000_000
SHORT = 120  # characters of a text


def smaller(report: Report) -> Iterator[Report]:
    """The report itself, and ever smaller ones that say what they leave out.

    First texts become short, then runs lose their figures of samples, the last of them first.
    """
    yield report
    short = replace(report, runs=[_with_short_texts(run) for run in report.runs])
    yield _saying(short, f"So that the page stays small, texts end after {SHORT} characters.")
    kept = len(report.runs)
    while kept:
        kept //= 2
        runs = [run if place < kept else _without_samples(run) for place, run in enumerate(short.runs)]
        whose = f"only the first {kept} runs have" if kept > 1 else "only the first run has" if kept else "no run has"
        words = f"So that the page stays small, texts are short, and {whose} figures of samples."
        yield _saying(replace(short, runs=runs), words)


def _saying(report: Report, words: str) -> Report:
    return replace(report, missing=[*report.missing, words])


def _with_short_texts(run: RunFigures) -> RunFigures:
    moved = [
        replace(step, samples=[replace(sample, text=_short(sample.text)) for sample in step.samples])
        for step in run.moved
    ]
    return replace(run, moved=moved, extremes=[replace(one, text=_short(one.text)) for one in run.extremes])


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHORT else f"{text[:SHORT]}…"


def _without_samples(run: RunFigures) -> RunFigures:
    return replace(run, moved=[], extremes=[], plane=None, self_influence=None, weight=None)
