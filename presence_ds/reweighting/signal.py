"""The signal that a sample is weighed by, in its own unit."""

from torch import Tensor

from presence_ds.reweighting.config import Signal
from presence_ds.reweighting.gram import Gradients
from presence_ds.reweighting.samples import Samples


def signal_values(signal: Signal, samples: Samples, gradients: Gradients | None, damping: float) -> Tensor:
    """One number per sample, [n] float64. The weights are u_i = f(z_i, τ) for every signal: τ > 0 raises high values.

    - self_influence: s_i = ‖g_i‖², the squared norm of the sample's gradient over the scored parameters (equation 3).
    - leverage: h_i, self-influence under the curvature of the step's own gradients (`Gradients.leverage`).
    - alignment: a_i = ⟨P g_i, P ḡ_ref⟩ with the running gradient of a trusted stream, the first-order benefit of a step
      on sample i to that stream. High is *useful* here, not novel or noisy, so τ > 0 is what helps.
    - loss: ℓ_i, the zero-cost baseline (Sow et al., 2025).
    - uniform: s_i, for the statistics; the weights are alike.

    Args:
        samples: [n], all finite.
        gradients: those of ``samples``, over all ranks; only needed for leverage.
        damping: ridge of leverage.
    """
    if signal == "leverage":
        assert gradients is not None
        return gradients.leverage(damping)
    by_signal = {"loss": samples.losses, "alignment": samples.alignment}
    values = by_signal.get(signal, samples.scores)
    assert values is not None
    return values.double()
