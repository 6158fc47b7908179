"""What wandb, tensorboard and trackio have in common: an interface of a few methods."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Protocol


class Histogram(NamedTuple):
    """How often values lie in bins of one width.

    Attributes:
        low, high: ends of the first and of the last bin.
        counts: of each bin.
    """

    low: float
    high: float
    counts: list[int]

    @property
    def edges(self) -> list[float]:
        """Of the bins, one more than there are."""
        width = (self.high - self.low) / len(self.counts)
        return [self.low + width * place for place in range(len(self.counts))] + [self.high]


class Line(NamedTuple):
    """What there is to show of one optimizer step.

    Attributes:
        figures: numbers, words and None, by the names of `presence_ds.trainer.trackers.sections`.
        histograms: by name.
        samples: rows of a table, each with the same columns; None: there is none of this step.
    """

    step: int
    figures: dict[str, Any]
    histograms: dict[str, Histogram]
    samples: list[dict[str, Any]] | None


class TrackerConfig(Protocol):
    """The part of every tracker's section that decides what it is given."""

    enabled: bool
    table_every: int | None
    sample_text: bool


class Tracker:
    """Shows a run somewhere. A thread calls the methods, so that they may take their time, and `abandon` another one.

    Attributes:
        name: of its section in the recipe.
        config: that section.
    """

    name: str
    config: TrackerConfig

    def start(self, resolved: dict[str, Any], first_step: int) -> int | None:
        """Begin, or go on with the run of this directory.

        Args:
            resolved: the run's configuration.
            first_step: that is still to be trained; what was shown of it, and of those after it, is to be forgotten.

        Returns:
            The last step that is shown already, 0 without one; None where it is off for this run.
        """
        raise NotImplementedError

    def log(self, line: Line) -> None:
        """Show a step, which is after all that were shown before."""
        raise NotImplementedError

    def caught_up(self) -> None:
        """Every step before the first one to be trained is logged."""

    def alert(self, title: str, text: str) -> None:
        """Tell a person, if it can."""

    def finish(self) -> None:
        """End well."""
        raise NotImplementedError

    def tear_down(self) -> None:
        """In any case at the end, also after an error."""

    def abandon(self) -> None:
        """Have whatever method hangs come to an end."""


def as_code(text: str) -> str:
    """``text``, in one line, as Markdown shows it as it is, whatever it holds."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}"
