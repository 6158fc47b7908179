"""Which part of a step's update is whose."""

import torch
from torch import Tensor

from presence_ds.reweighting.samples import Samples

OUTSIZED = 2.0  # a source's share of the update over its share of the tokens, above which it is flagged


def update_terms(weights: Tensor, scores: Tensor, alignment: Tensor | None) -> Tensor:
    """What of ‖Σ w g‖² is each sample's, ⟨w g, Σ_j w_j g_j⟩: w (w n + (1 − w) a); [n] float64.

    The others of a step stand for (1 − w) times their mean, as is exact with uniform weights. It is below 0 for a
    sample that the step moves away from. Without alignments it is w √n, the length of its part. As
    `presence_ds.trainer.samples.sql` says it in SQL.

    Args:
        weights: [n], summing to 1 over a step.
        scores: [n] self-influence.
        alignment: [n], with the mean gradient of the step's others.
    """
    weights, scores = weights.double(), scores.double()
    if alignment is None:
        return weights * scores.clamp(min=0.0).sqrt()
    return weights * (weights * scores + (1.0 - weights) * alignment.double())


def source_shares(samples: Samples, weights: Tensor) -> dict[int, dict[str, float]]:
    """Of every source of a step by its id: ``update_share``, ``token_share``, and ``outsized``, 0 or 1.

    ``outsized`` is whether the first is more than `OUTSIZED` times the other. Shares are of the samples that count, the
    tokens their targets.

    Args:
        samples: all N of the step.
        weights: [N] float64, summing to 1.

    Returns:
        nothing where no gradients are scored, or no update was made.
    """
    kept = samples.only_counted()
    if kept.scores is None or not len(kept):
        return {}
    terms = update_terms(weights[samples.counted], kept.scores, kept.alignment)
    total = terms.sum().item()
    if not total > 0.0:  # alignments are estimates: what is left of a sum of them may have no sign
        return {}
    ids, index = kept.sources.unique(return_inverse=True)
    updates, tokens = (torch.bincount(index, part.double(), len(ids)) for part in (terms / total, kept.targets))
    return {
        number: {"update_share": update, "token_share": share, "outsized": int(update > OUTSIZED * share)}
        for number, update, share in zip(ids.tolist(), updates.tolist(), (tokens / tokens.sum()).tolist(), strict=True)
    }
