"""How self-influence, weight and loss are spread over the samples of a step."""

import torch
from torch import Tensor

from presence_ds.reweighting import Samples
from presence_ds.trainer.trackers.sections import RELATIVE_WEIGHT, SAMPLE_LOSS, SELF_INFLUENCE
from presence_ds.trainer.trackers.tracker import Histogram

BINS = 32


def step_histograms(samples: Samples | None, weights: Tensor | None) -> dict[str, Histogram]:
    """Of the samples that count: log₁₀ of the self-influence, weight in units of the mean, loss.

    The loss is in nats, per token unless `presence.loss_normalizer` says otherwise.

    Args:
        samples: all N of the step, on the host; None where nothing is known of it.
        weights: [N] float64, theirs.
    """
    if samples is None or weights is None or not samples.counted.any():
        return {}
    kept, weights = samples.only_counted(), weights[samples.counted]
    values = {SAMPLE_LOSS: kept.losses, RELATIVE_WEIGHT: weights / weights.mean()}
    if kept.scores is not None:
        values[SELF_INFLUENCE] = kept.scores[kept.scores > 0.0].double().log10()
    return {name: histogram(of) for name, of in values.items() if len(of)}


def histogram(values: Tensor) -> Histogram:
    """Of ``values`` [n], n ≥ 1, all finite; of one value alone it is a bin wide."""
    values = values.double()
    low, high = (end.item() for end in values.aminmax())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return Histogram(low, high, torch.histc(values, BINS, low, high).long().tolist())
