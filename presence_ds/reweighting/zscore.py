"""Normaliser ``zscore``: the paper's."""

from torch import Tensor

from presence_ds.reweighting.moments import Moments, RunningMoments


class ZScore:
    """z_i = (s_i − μ) / sqrt(σ² + ε) over the samples of a step (equation 7).

    The weights then do not depend on how much the scores really vary, and a single outlier can take σ: the raw scores
    are heavy-tailed. See ``log_zscore`` and ``rank``.
    """

    def fit(self, values: Tensor) -> Moments:
        """μ and σ² of ``values`` ([n], finite, n ≥ 1)."""
        return Moments.of(values)

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        """z-scores, float64, of the shape of ``values``."""
        assert moments is not None
        return moments.normalize(values)

    def running(self) -> RunningMoments:
        """An empty store of earlier steps' moments."""
        return RunningMoments(relative=True)
