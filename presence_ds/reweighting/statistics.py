"""What one optimizer step's weights look like over all ranks."""

from typing import Any

from torch import Tensor

from presence_ds.reweighting.effective_size import effective_sample_size
from presence_ds.reweighting.moments import Moments
from presence_ds.reweighting.samples import Samples


def describe(samples: Samples, weights: Tensor) -> dict[str, Any]:
    """Statistics of a step as plain numbers. Means, variance and extremes are over the samples that count.

    Args:
        samples: all N of the step.
        weights: [N] float64, summing to 1.

    Returns:
        what `count` gives, ``loss`` (mean) and ``weighted_loss`` (nats per token),
        ``si_mean``, ``si_variance`` (population), ``si_min``, ``si_max``, ``effective_sample_size`` (1/Σw²),
        ``max_weight``, and ``sources``: for every source id that occurs ``samples``, ``mean_weight`` (in units of 1/N:
        1 is what uniform weights give), ``si_mean`` and ``loss`` (NaN if none of its samples counts). Without
        scores (signal loss) there is no ``si_...``.
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
    relative = weights * len(weights)
    sources = {}
    for source in samples.sources.unique().tolist():
        member = samples.sources == source
        good = member & counted
        sources[source] = {"samples": int(member.sum()), "mean_weight": relative[member].mean().item()}
        if samples.scores is not None:
            sources[source]["si_mean"] = samples.scores[good].double().mean().item()
        sources[source]["loss"] = losses[good].mean().item()
    return result | {"sources": sources}


def count(samples: Samples) -> dict[str, Any]:
    """``samples``, and those of them that are left out: ``nonfinite_samples`` and ``samples_without_targets``."""
    return {
        "samples": len(samples),
        "nonfinite_samples": samples.nonfinite,
        "samples_without_targets": int((~samples.has_targets).sum()),
    }
