"""Which samples of a corpus are kept: equations 4 and 5 of the method, and what may be asked beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from presence_ds.errors import ConfigError

By = Literal["source", "language"]

# Why a sample is not kept, in the order in which it is asked; 0 where it is kept.
REASONS = ("kept", "verdict", "no score", "where", "document", "score")
KEPT, VERDICT, NO_SCORE, WHERE, DOCUMENT, SCORE = range(len(REASONS))


@dataclass(frozen=True)
class Rule:
    """What is kept.

    Args:
        keep: How many samples, or which share of those that the rest of the rule leaves, with the lowest scores. None:
            all that it leaves.
        reverse: The highest scores instead.
        by: The same share within each source, or language. None: over all samples.
        max_per_document: Of every document no more samples than that, those that ``keep`` would take first.
        where: Condition in SQL on the columns of the scores.
        column: The column that has the scores.
        dropped_sources: Sources of which nothing is kept.
    """

    keep: int | float | None = None
    reverse: bool = False
    by: By | None = None
    max_per_document: int | None = None
    where: str | None = None
    column: str = "self_influence"
    dropped_sources: tuple[str, ...] = ()

    def validate(self) -> None:
        """Raise `ConfigError` for what cannot be asked, or keeps everything or nothing of any corpus."""
        if isinstance(self.keep, float) and not 0 < self.keep < 1:
            raise ConfigError(
                f"keep is {self.keep}: it must be a whole number of samples, or a share above 0 and below 1"
            )
        if isinstance(self.keep, int) and self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: it must be at least 1 sample, or a share above 0 and below 1")
        if self.max_per_document is not None and self.max_per_document < 1:
            raise ConfigError(f"max_per_document is {self.max_per_document}: it must be at least 1")
        if self.by is not None and self.keep is None:
            raise ConfigError(f"by is {self.by} without keep, which it divides: give keep, or leave it out")
        if self.reverse and self.keep is None and self.max_per_document is None:
            raise ConfigError("reverse is true without keep or max_per_document, which it turns round: leave it out")


def choose(
    rule: Rule,
    scores: NDArray[np.float32],
    groups: NDArray[np.int32],
    *,
    counted: NDArray[np.bool_] | None,
    passing: NDArray[np.bool_] | None = None,
    documents: NDArray[np.int64] | None = None,
    dropped: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Why each sample is not kept: an index of `REASONS`, [n].

    Of equal scores the one that comes first in the corpus is kept, in both
    directions.

    Args:
        scores: [n].
        groups: [n]: which share of ``keep`` each has a part in, counted from 0; all 0 without ``by``.
        counted: [n], whether there is a score, without which a sample goes; needed with ``keep`` and
            ``max_per_document``.
        passing: [n], what ``where`` says; needed with it.
        documents: [n], equal for samples of one document; needed with ``max_per_document``.
        dropped: [n], whether the sample is of one of ``dropped_sources``; needed with those.

    Raises:
        ConfigError: fewer samples are left than are to be kept, or than there are groups.
    """
    reasons = np.zeros(len(scores), np.uint8)

    def drop(which: NDArray[np.bool_], why: int) -> None:
        reasons[which & (reasons == KEPT)] = why

    if dropped is not None:
        drop(dropped, VERDICT)
    if counted is not None:
        drop(~counted, NO_SCORE)
    if passing is not None:
        drop(~passing, WHERE)
    order = -scores if rule.reverse else scores
    if rule.max_per_document is not None:
        assert documents is not None
        left = np.flatnonzero(reasons == KEPT)
        over = ranks_within(documents[left], order[left]) >= rule.max_per_document
        reasons[left[over]] = DOCUMENT
    if rule.keep is not None:
        left = np.flatnonzero(reasons == KEPT)
        quotas = divide(rule.keep, np.bincount(groups[left], minlength=int(groups.max(initial=0)) + 1).tolist())
        over = ranks_within(groups[left], order[left]) >= np.array(quotas)[groups[left]]
        reasons[left[over]] = SCORE
    return reasons


def ranks_within(groups: NDArray[np.integer], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many of its group come before each value, in ascending order, equal ones as they stand; int64 [n]."""
    order = np.lexsort((values, groups))
    sorted_groups = groups[order]
    first = np.flatnonzero(np.diff(sorted_groups, prepend=sorted_groups[:1] - 1))
    lengths = np.diff(first, append=len(order))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(first, lengths)
    return ranks


def divide(keep: int | float, sizes: Sequence[int]) -> list[int]:
    """How many are kept of groups of these sizes, at least one of each that has any.

    A share is that of every group, rounded. A number is divided in proportion to the sizes, by largest remainders.

    Raises:
        ConfigError: it is more than there are, or fewer than there are groups.
    """
    if isinstance(keep, float):
        return [min(size, max(1, round(keep * size))) for size in sizes]
    total, number = sum(sizes), sum(size > 0 for size in sizes)
    if keep > total:
        raise ConfigError(f"keep is {keep}: there are only {total} samples to keep it from")
    if keep < number:
        raise ConfigError(f"keep is {keep}: it must be at least {number}, one sample of each there is to divide it by")
    quotas = [max(keep * size // total, min(size, 1)) for size in sizes]
    remainders = sorted(range(len(sizes)), key=lambda index: (-(keep * sizes[index] % total), index))
    while (rest := keep - sum(quotas)) != 0:
        step = 1 if rest > 0 else -1
        for index in remainders if rest > 0 else reversed(remainders):
            fits = quotas[index] < sizes[index] if rest > 0 else quotas[index] > 1
            if rest != 0 and fits:
                quotas[index] += step
                rest -= step
    return quotas
