"""What samples are weighed by: from what is known of them to the values that a weight function takes."""

import torch
from torch import Tensor

from presence_ds.reweighting.config import ReweightingConfig
from presence_ds.reweighting.gram import Gradients
from presence_ds.reweighting.samples import Samples


def signal_values(config: ReweightingConfig, samples: Samples, gradients: Gradients | None = None) -> Tensor:
    """The signal of ``samples``, all finite, in its own unit: [n] float64; τ > 0 raises high values of every one.

    - self_influence: s_i = ‖g_i‖², the squared norm of the sample's gradient over the scored parameters (eq. 3).
    - leverage: h_i, self-influence under the curvature of the step's own ``gradients`` (`Gradients.leverage`).
    - alignment: a_i = ⟨P g_i, P ḡ_ref⟩ with the running gradient of a trusted stream, the first-order benefit of a
      step on sample i to that stream. High is *useful* here, not novel or noisy, so τ > 0 is what helps.
    - loss: ℓ_i, the zero-cost baseline (Sow et al., 2025).
    - uniform: s_i, for the statistics; the weights are alike.

    Calibrated weights have no one signal: [n, 6], the columns that `Calibrated` is given. Fields of ``samples`` may
    also be [steps, n] each.
    """
    if config.calibrates:
        assert samples.scores is not None
        scores = samples.scores.double()
        nothing = torch.zeros_like(scores)
        parts = (
            nothing if part is None else torch.where(scores > 0, part.double() / scale, 0.0)
            for part, scale in ((samples.vocabulary_scores, scores), (samples.momentum_alignment, scores.sqrt()))
        )
        known = (samples.losses, samples.targets, samples.sources)
        return torch.stack([scores, *(column.double() for column in known), *parts], dim=-1)
    if config.signal == "leverage":
        assert gradients is not None
        return gradients.leverage(config.damping)
    values = {"loss": samples.losses, "alignment": samples.reference_alignment}.get(config.signal, samples.scores)
    assert values is not None
    return values.double()
