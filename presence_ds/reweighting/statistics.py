"""What one optimizer step's weights look like over all ranks."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from presence_ds.reweighting.normalizers import Moments
from presence_ds.reweighting.samples import Samples
from presence_ds.reweighting.weight_functions import effective_sample_size


class SourceFigures(Mapping[int, dict[str, Any]]):
    """Figures of each source by its id, as plain numbers.

    Kept as columns, since there may be many sources and few steps are looked at source by source.

    Attributes:
        ids: [S] int64, ascending.
        columns: [S] each, by the name of the figure.
    """

    def __init__(self, ids: Tensor, columns: dict[str, Tensor]) -> None:
        self.ids = ids
        self.columns = columns

    @cached_property
    def _rows(self) -> dict[int, dict[str, Any]]:
        rows = zip(*(column.tolist() for column in self.columns.values()), strict=True)
        return {
            number: dict(zip(self.columns, row, strict=True))
            for number, row in zip(self.ids.tolist(), rows, strict=True)
        }

    def __getitem__(self, source: int) -> dict[str, Any]:
        return self._rows[source]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return repr(self._rows)


def describe(samples: Samples, weights: Tensor) -> dict[str, Any]:
    """Statistics of a step as plain numbers. Means, variance and extremes are over the samples that count.

    Args:
        samples: all N of the step.
        weights: [N] float64, summing to 1.

    Returns:
        what `count` gives, ``loss`` (mean) and ``weighted_loss`` (nats per token),
        ``si_mean``, ``si_variance`` (population), ``si_min``, ``si_max``, ``effective_sample_size`` (1/Σw²),
        ``max_weight``, and ``sources`` (`SourceFigures`): for every source id that occurs ``samples``, ``mean_weight``
        (in units of 1/N: 1 is what uniform weights give), ``si_mean`` and ``loss`` (NaN if none of its samples counts).
        Where no gradients are scored there is no ``si_...``.
    """
    counted = samples.counted
    losses, kept = samples.losses.double(), weights[counted]
    result = count(samples) | {
        "loss": losses[counted].mean().item(),
        "weighted_loss": (kept * losses[counted]).sum().item(),
        "effective_sample_size": effective_sample_size(kept),
        "max_weight": kept.max().item(),
    }
    if samples.scores is not None:
        scores = samples.scores[counted].double()
        moments = Moments.of(scores)
        result |= {
            "si_mean": moments.mean,
            "si_variance": moments.variance,
            "si_min": scores.min().item(),
            "si_max": scores.max().item(),
        }
    return result | {"sources": _by_source(samples, weights)}


def _by_source(samples: Samples, weights: Tensor) -> SourceFigures:
    ids, index = samples.sources.unique(return_inverse=True)
    counted = samples.counted

    def sums(index: Tensor, values: Tensor) -> Tensor:
        return torch.bincount(index, values.double(), len(ids))

    samples_of = torch.bincount(index, minlength=len(ids))
    counted_count = torch.bincount(index[counted], minlength=len(ids))
    columns = {"samples": samples_of, "mean_weight": sums(index, weights) * len(weights) / samples_of}
    if samples.scores is not None:
        columns["si_mean"] = sums(index[counted], samples.scores[counted]) / counted_count
    columns["loss"] = sums(index[counted], samples.losses[counted]) / counted_count
    return SourceFigures(ids, columns)


def count(samples: Samples) -> dict[str, Any]:
    """``samples``, and those of them that are left out: ``nonfinite_samples`` and ``samples_without_targets``."""
    return {
        "samples": len(samples),
        "nonfinite_samples": samples.nonfinite,
        "samples_without_targets": int((~samples.has_targets).sum()),
    }
