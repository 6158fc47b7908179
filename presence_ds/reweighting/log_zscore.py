"""Normaliser ``log_zscore``."""

from torch import Tensor

from presence_ds.reweighting.moments import Moments, RunningMoments

LOWEST = -3.0


class LogZScore:
    """z-score of the logarithm: z_i = max((log s_i − μ) / sqrt(σ² + ε), −3), with μ and σ² of log s.

    Self-influence spreads over orders of magnitude and is nearer to a log-normal than to a normal distribution, so one
    outlier takes less of σ here, and a factor in all scores changes nothing at all.

    A score of 0 (a sample without a gradient) has no logarithm. It takes no part in μ and σ, and its z-score is −3,
    which is also the least any other sample can have: clamped at a tiny number instead, a single such sample would
    take all of σ and, with τ < 0, all of the weight.
    """

    def fit(self, values: Tensor) -> Moments:
        """μ and σ² of the logarithms of ``values`` ([n], finite, n ≥ 1, none negative)."""
        positive = values[values > 0]
        return Moments.of(positive.double().log()) if len(positive) else Moments(0.0, 1.0)

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        """z-scores, float64, of the shape of ``values``."""
        assert moments is not None
        return moments.normalize(values.double().log()).clamp(min=LOWEST)

    def running(self) -> RunningMoments:
        """An empty store of earlier steps' moments."""
        return RunningMoments(relative=False)
