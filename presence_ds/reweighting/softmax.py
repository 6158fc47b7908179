"""Weight function ``softmax``: the paper's (equation 8)."""

from dataclasses import dataclass

from torch import Tensor

MAX_EXPONENT = 20.0


@dataclass(frozen=True)
class Softmax:
    """u_i = exp(τ z_i); the weights are w_i = u_i / Σ_j u_j over the optimizer step.

    With τ > 0 a high score gains weight, with τ < 0 it loses weight, whatever the signal: for self-influence, leverage
    and loss τ < 0 is caution, for alignment, where a high score is a useful sample, τ > 0 is.
    """

    def __call__(self, z: Tensor, tau: float, *, complete: bool) -> Tensor:
        """Unnormalised weights, [n] float64, all positive unless so small that float64 has no number for them.

        Args:
            z: [n] float64 normalised scores.
            tau: signed temperature.
            complete: whether ``z`` are all finite samples of the step, normalised with its own statistics. Then u is
                divided by the largest, which the weights do not see. With those of earlier steps that one is not known
                when the first samples are weighed. The exponent is limited to ±20 there: a factor of e²⁰ already
                leaves one sample nearly all the weight, while an unlimited one would overflow the accumulated gradient
                or its norm.
        """
        exponent = tau * z
        if complete:
            return (exponent - exponent.max()).exp()
        return exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()
