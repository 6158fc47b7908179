"""Tables and lists of many runs, with what several of them have in common said once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from presence_ds.trainer.report.figures import Report, RunFigures
from presence_ds.trainer.report.page.curves import names_of
from presence_ds.trainer.report.page.text import shown


class Column(NamedTuple):
    """Of runs that are alike: places in `Report.runs`."""

    name: str
    runs: Sequence[int]

    def value(self, values: Sequence[Any]) -> str:
        """Those of its runs, of the ``values`` of all."""
        return ", ".join(dict.fromkeys(shown(values[place]) for place in self.runs))


class Gap(NamedTuple):
    """Sentences on what is missing from ``whose`` report."""

    whose: str
    sentences: Sequence[str]


def columns_of(report: Report) -> list[Column]:
    """A column for every group, where there are groups of several runs, else for every run."""
    if len(report.groups) < len(report.runs):
        return [Column(name, group.runs) for name, group in zip(names_of(report), report.groups, strict=True)]
    return [Column(run.label, [place]) for place, run in enumerate(report.runs)]


def gaps_of(runs: Sequence[RunFigures]) -> list[Gap]:
    """What is missing, and notes, by the runs that they are of."""
    labels: dict[str, list[str]] = {}
    for run in runs:
        for words in dict.fromkeys(run.missing + run.notes):
            labels.setdefault(words, []).append(run.label)
    found: dict[str, list[str]] = {}
    for words, whose in labels.items():
        everyone = len(whose) == len(runs) > 1
        found.setdefault(f"All {len(runs)} runs" if everyone else ", ".join(whose), []).append(words)
    return [Gap(whose, sentences) for whose, sentences in found.items()]
