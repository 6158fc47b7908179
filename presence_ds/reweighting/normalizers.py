"""Normalisers make the values of a signal comparable, by figures of the step or of earlier ones (equation 7)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from presence_ds.reweighting.config import NormalizerKind

EPSILON = 1e-24  # of equation 7, in the unit of σ²: far below the variance of any scores that differ
ROUNDING = 1e-7  # relative spread of float32 scores that are all alike
DECAY = 0.9  # of the running variance, per optimizer step
LOWEST_OF_LOGARITHMS = -3.0


@dataclass(frozen=True)
class Moments:
    """μ and σ² of a step's scores, or [steps, 1] of many steps'; σ² is the population variance, divided by n."""

    mean: Any
    variance: Any

    @classmethod
    def of(cls, scores: Tensor, kept: Tensor | None = None) -> "Moments":
        """Of finite ``scores`` ([n], at least one, or [steps, n]) where they are ``kept``, computed in float64."""
        scores = scores.double()
        if kept is not None:
            if scores.dim() == 1:
                return cls.of(scores[kept]) if kept.any() else cls(0.0, 1.0)
            number = kept.sum(-1, keepdim=True)
            mean = torch.where(kept, scores, 0.0).sum(-1, keepdim=True) / number.clamp(min=1)
            squares = torch.where(kept, scores - mean, 0.0).square().sum(-1, keepdim=True)
            return cls(mean, torch.where(number > 0, squares / number.clamp(min=1), 1.0))
        mean, variance = scores.mean(-1, keepdim=True), scores.var(-1, correction=0, keepdim=True)
        return cls(mean.item(), variance.item()) if scores.dim() == 1 else cls(mean, variance)

    @property
    def std(self) -> Any:
        """sqrt(σ² + ε)."""
        return (self.variance + EPSILON) ** 0.5

    @property
    def is_spread(self) -> Any:
        """Whether the scores differed by more than rounding."""
        return (self.variance > EPSILON**2) & (self.variance > (ROUNDING * self.mean) ** 2)

    def normalize(self, scores: Tensor) -> Tensor:
        """z-scores, equation 7, in float64."""
        return (scores.double() - self.mean) / self.std


class Running:
    """Figures expected of the next optimizer step, from those of earlier ones.

    Averages are kept as decayed sums with the sum of their weights, which divides the start at zero out.
    """

    STATE: tuple[str, ...]  # names of the attributes that are the state: plain numbers

    @property
    def current(self) -> Any:
        """None until the first update."""
        raise NotImplementedError

    def update(self, figures: Any) -> None:
        """Take in the figures of one finished step."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in self.STATE:
            setattr(self, name, state[name])


class RunningMoments(Running):
    """Moments expected of the next optimizer step.

    With several accumulation steps a sample must be weighed before the step's last samples have been scored, so the
    normaliser cannot come from the step itself. Self-influence falls by orders of magnitude early in training, all
    samples' together: an average of σ² would be that of long ago and leave every weight uniform. So the level μ is the
    last step's, and what is averaged, with exponentially decaying weights, is the spread relative to it, σ²/μ². Of
    logarithms it is σ² itself, which a common factor in all scores leaves as it is.
    (An error in μ cancels in the softmax; only σ matters to the weights.)
    """

    STATE = ("mean", "variance", "weight")

    def __init__(self, *, relative: bool) -> None:
        """``relative``: whether σ grows with μ; the scores are then not negative."""
        self._relative = relative
        self.mean = self.variance = self.weight = 0.0

    @property
    def current(self) -> Moments | None:
        if self.weight == 0.0:
            return None
        return Moments(self.mean, self._unit(self.mean) * self.variance / self.weight)

    def update(self, figures: Moments) -> None:
        self.mean = figures.mean
        unit = self._unit(figures.mean)
        self.variance = DECAY * self.variance + (1 - DECAY) * (figures.variance / unit if unit > 0.0 else 0.0)
        self.weight = DECAY * self.weight + (1 - DECAY)

    def _unit(self, mean: float) -> float:
        return mean**2 if self._relative else 1.0


class Normalizer:
    """Makes the values of a signal comparable, by their moments; the base has none."""

    relative: bool | None = None  # as of `RunningMoments`; None where the kind has no moments

    def fit(self, values: Tensor) -> Moments | None:
        """Moments of ``values`` ([n] or [steps, n], finite, n ≥ 1); None where the kind has none."""
        return None

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        """z-scores of ``values``, float64 in their shape."""
        raise NotImplementedError

    def running(self) -> RunningMoments | None:
        """An empty store of earlier steps' moments; None where the kind has none."""
        return None if self.relative is None else RunningMoments(relative=self.relative)


class ZScore(Normalizer):
    """The paper's: z_i = (s_i − μ) / sqrt(σ² + ε) over the samples of a step.

    The weights then do not depend on how much the scores really vary, and a single outlier can take σ: the raw scores
    are heavy-tailed. See `LogZScore` and `Rank`.
    """

    relative = True

    def fit(self, values: Tensor) -> Moments:
        return Moments.of(values)

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        assert moments is not None
        return moments.normalize(values)


class LogZScore(Normalizer):
    """z-score of the logarithm: z_i = max((log s_i − μ) / sqrt(σ² + ε), −3), with μ and σ² of log s, s not negative.

    Self-influence spreads over orders of magnitude and is nearer to a log-normal than to a normal distribution, so one
    outlier takes less of σ here, and a factor in all scores changes nothing at all.

    A score of 0 (a sample without a gradient) has no logarithm. It takes no part in μ and σ, and its z-score is −3,
    which is also the least any other sample can have: clamped at a tiny number instead, a single such sample would
    take all of σ and, with τ < 0, all of the weight.
    """

    relative = False

    def fit(self, values: Tensor) -> Moments:
        return Moments.of(values.double().log(), kept=values > 0)

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        assert moments is not None
        return moments.normalize(values.double().log()).clamp(min=LOWEST_OF_LOGARITHMS)


class Rank(Normalizer):
    """Normal quantiles of the ranks: z_i = Φ⁻¹((r_i − ½) / n), r_i = 1..n from the lowest; ties share their mean rank.

    Nothing but the order of the scores is kept, so no outlier matters and any increasing function of the scores gives
    the same weights. Quantiles of the normal distribution rather than standardised ranks, because τ and thresholds then
    mean what they mean for the z-score of normal scores, and the effective sample size of the softmax is known in
    advance: n·exp(−τ²). Ranks are of the step alone: `check_running` refuses them among the samples of other steps.
    """

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        values = values.contiguous()
        ordered = values.sort(-1).values
        below, up_to = torch.searchsorted(ordered, values), torch.searchsorted(ordered, values, right=True)
        mean_rank = (below + 1 + up_to).double() / 2
        return torch.special.ndtri((mean_rank - 0.5) / values.shape[-1])


NORMALIZERS: dict[NormalizerKind, type[Normalizer]] = {"zscore": ZScore, "log_zscore": LogZScore, "rank": Rank}
