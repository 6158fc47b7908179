"""Weight function ``saturating``: only one tail loses weight."""

from dataclasses import dataclass

from torch import Tensor

from presence_ds.reweighting.softmax import MAX_EXPONENT


@dataclass(frozen=True)
class Saturating:
    """u_i = 2 σ(−|τ| e_i) with σ the logistic function and e_i how far z_i lies in the tail.

    With τ < 0 the tail is above the threshold, e_i = max(0, z_i − threshold); with τ > 0 it is below the negative
    threshold, e_i = max(0, −z_i − threshold). So the sign of τ means what it means to the softmax. Outside the tail
    u is exactly 1: those samples keep equal weights, and the effective sample size stays near the number of samples.
    Far in the tail u falls off as 2 exp(−|τ| e). τ = 0 leaves every weight alike; a large |τ| cuts the tail off.

    Attributes:
        threshold: where the tail begins, in standard deviations from the mean, 0 or more.
    """

    threshold: float

    def __call__(self, z: Tensor, tau: float, *, complete: bool) -> Tensor:
        """Unnormalised weights, [n] float64 in (0, 1], of normalised scores ``z`` ([n] float64).

        The exponent is limited to 20, so that a step of nothing but tail, as figures of earlier steps can make it
        appear, keeps a positive sum.
        """
        excess = ((z if tau < 0 else -z) - self.threshold).clamp(min=0.0)
        return 2.0 * (-abs(tau) * excess).clamp(min=-MAX_EXPONENT).sigmoid()
