"""What a source is worth: the alignment of its samples for their noise, as a share of what all samples have."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Verdict = Literal["keep", "doubtful", "drop"]
WORTH_KEEPING = 0.5  # relative a/n, below which leaving a source out raises the quality of a step
ERRORS = 2.0  # standard ones, for a verdict


class SourceWorth(NamedTuple):
    """A source over the steps of a window.

    Attributes:
        share: of the samples.
        norm: its mean n, in units of that of all samples.
        alignment: its mean a, in units of that of all samples; NaN where that is not above 0.
        ratio: alignment / norm, what a sample is worth for its noise; 1 for all samples together.
        error: standard error of ``ratio``; NaN where there are too few steps.
        verdict: keep, if the ratio is above ½ by two errors; drop, if it is below by as many; else doubtful.
    """

    share: float
    norm: float
    alignment: float
    ratio: float
    error: float
    verdict: Verdict


def source_sums(sources: Tensor, noise: Tensor, signal: Tensor, number: int | None = None) -> Tensor:
    """Number of samples, Σ n and Σ a of every source of a step, [3, sources]; arguments [n], as of `in_units`.

    ``number`` of sources, where it is known.
    """
    number = int(sources.max()) + 1 if number is None else number
    columns = (torch.ones_like(noise), noise, signal)
    return torch.stack([torch.bincount(sources, column, number) for column in columns])


def relative(sums: Tensor) -> Tensor:
    """Share, and n, a and a/n in units of all samples', of every source: [..., 4, sources]; NaN where there is none.

    Args:
        sums: [..., 3, sources] over steps.
    """
    count, noise, signal = sums.unbind(-2)
    total = sums.sum(-1, keepdim=True)
    all_count, all_noise, all_signal = total.unbind(-2)
    norm = (noise / count) / (all_noise / all_count)
    alignment = torch.where(all_signal > 0, (signal / count) / (all_signal / all_count), torch.nan)
    return torch.stack([count / all_count, norm, alignment, alignment / norm], dim=-2)


def verdict(ratio: float, error: float) -> Verdict:
    """What the ½ rule says of a source; NaN is doubtful."""
    if ratio - ERRORS * error > WORTH_KEEPING:
        return "keep"
    return "drop" if ratio + ERRORS * error < WORTH_KEEPING else "doubtful"


def source_worth(values: Tensor, errors: Tensor) -> dict[int, SourceWorth]:
    """By source id, those of which there are samples, from `relative` and its errors ([4, sources])."""
    table = {}
    columns = zip(*values.tolist(), errors[3].tolist(), strict=True)
    for number, (share, norm, alignment, ratio, error) in enumerate(columns):
        if share > 0:
            table[number] = SourceWorth(share, norm, alignment, ratio, error, verdict(ratio, error))
    return table
