"""What one optimizer step's weights look like over all ranks."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from presence_ds.reweighting.moments import Moments


@dataclass(frozen=True)
class Samples:
    """All samples of one optimizer step, gathered from every rank; the same on every rank.

    Attributes:
        scores: [N] float32 raw self-influence.
        losses: [N] float32 nats per token.
        sources: [N] int64 source ids.
        finite: [N] bool, whether score and loss are finite.
    """

    scores: Tensor
    losses: Tensor
    sources: Tensor
    finite: Tensor


def describe(samples: Samples, weights: Tensor, normalizer: Moments) -> dict[str, Any]:
    """Statistics of a step as plain numbers. Means, variance and extremes are over samples whose score is finite.

    Args:
        weights: [N] float64, summing to 1.
        normalizer: moments that the scores were normalised with.

    Returns:
        ``samples`` and ``nonfinite_samples`` (counts), ``loss`` (mean) and ``weighted_loss`` (nats per token),
        ``si_mean``, ``si_variance`` (population), ``si_min``, ``si_max``, ``normalizer_mean``, ``normalizer_std``,
        ``effective_sample_size`` (1/Σw²), ``max_weight``, and ``sources``: for every source id that occurs ``samples``,
        ``mean_weight`` (in units of 1/N: 1 is what uniform weights give), ``si_mean`` and ``loss``.
    """
    finite = samples.finite
    scores, losses, kept = samples.scores[finite].double(), samples.losses[finite].double(), weights[finite]
    moments = Moments.of(scores)
    sources = {}
    relative = weights * len(weights)
    for source in samples.sources.unique().tolist():
        member = samples.sources == source
        good = member & finite
        sources[source] = {
            "samples": int(member.sum()),
            "mean_weight": relative[member].mean().item(),
            "si_mean": samples.scores[good].double().mean().item(),
            "loss": samples.losses[good].double().mean().item(),
        }
    return {
        "samples": len(weights),
        "nonfinite_samples": int((~finite).sum()),
        "loss": losses.mean().item(),
        "weighted_loss": (kept * losses).sum().item(),
        "si_mean": moments.mean,
        "si_variance": moments.variance,
        "si_min": scores.min().item(),
        "si_max": scores.max().item(),
        "normalizer_mean": normalizer.mean,
        "normalizer_std": normalizer.std,
        "effective_sample_size": 1.0 / kept.square().sum().item(),
        "max_weight": kept.max().item(),
        "sources": sources,
    }
