"""What one optimizer step's weights look like over all ranks."""

from typing import Any

from torch import Tensor

from presence_ds.reweighting.effective_size import effective_sample_size
from presence_ds.reweighting.moments import Moments
from presence_ds.reweighting.samples import Samples


def describe(samples: Samples, weights: Tensor) -> dict[str, Any]:
    """Statistics of a step as plain numbers. Means, variance and extremes are over finite samples.

    Args:
        samples: all N of the step.
        weights: [N] float64, summing to 1.

    Returns:
        ``samples`` and ``nonfinite_samples`` (counts), ``loss`` (mean) and ``weighted_loss`` (nats per token),
        ``si_mean``, ``si_variance`` (population), ``si_min``, ``si_max``, ``effective_sample_size`` (1/Σw²),
        ``max_weight``, and ``sources``: for every source id that occurs ``samples``, ``mean_weight`` (in units of 1/N:
        1 is what uniform weights give), ``si_mean`` and ``loss`` (NaN if none of its samples is finite). Without
        scores (signal loss) there is no ``si_...``.
    """
    finite = samples.finite
    losses, kept = samples.losses.double(), weights[finite]
    result = {
        "samples": len(samples),
        "nonfinite_samples": int((~finite).sum()),
        "loss": losses[finite].mean().item(),
        "weighted_loss": (kept * losses[finite]).sum().item(),
        "effective_sample_size": effective_sample_size(kept),
        "max_weight": kept.max().item(),
    }
    if samples.scores is not None:
        scores = samples.scores[finite].double()
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
        good = member & finite
        sources[source] = {"samples": int(member.sum()), "mean_weight": relative[member].mean().item()}
        if samples.scores is not None:
            sources[source]["si_mean"] = samples.scores[good].double().mean().item()
        sources[source]["loss"] = losses[good].mean().item()
    return result | {"sources": sources}
