"""Mean and variance of the scores, for the normaliser (equation 7)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

EPSILON = 1e-24  # of equation 7, in the unit of σ²: far below the variance of any scores that differ
ROUNDING = 1e-7  # relative spread of float32 scores that are all alike
DECAY = 0.9  # of the running variance, per optimizer step


@dataclass(frozen=True)
class Moments:
    """μ and σ² of scores; σ² is the population variance, divided by n."""

    mean: float
    variance: float

    @classmethod
    def of(cls, scores: Tensor) -> "Moments":
        """Of finite ``scores`` (any shape, at least one), computed in float64."""
        scores = scores.double()
        return cls(scores.mean().item(), scores.var(correction=0).item())

    @property
    def std(self) -> float:
        """sqrt(σ² + ε)."""
        return (self.variance + EPSILON) ** 0.5

    @property
    def is_spread(self) -> bool:
        """Whether the scores differed by more than rounding."""
        return self.variance > max(EPSILON**2, (ROUNDING * self.mean) ** 2)

    def normalize(self, scores: Tensor) -> Tensor:
        """z-scores, equation 7, in float64."""
        return (scores.double() - self.mean) / self.std


class RunningMoments:
    """Moments expected of the next optimizer step, from those of earlier ones.

    With several accumulation steps a sample must be weighed before the step's last samples have been scored, so the
    normaliser cannot come from the step itself. Self-influence falls by orders of magnitude early in training, all
    samples' together: an average of σ² would be that of long ago and leave every weight uniform. So the level μ is the
    last step's, and what is averaged, with exponentially decaying weights, is the spread relative to it, σ²/μ². Of
    logarithms it is σ² itself, which a common factor in all scores leaves as it is.
    (An error in μ cancels in the softmax; only σ matters to the weights.)
    """

    def __init__(self, *, relative: bool) -> None:
        """``relative``: whether σ grows with μ; the scores are then not negative."""
        self._relative = relative
        self._mean = 0.0
        self._variance = self._weight = 0.0  # decayed sums: the start at zero is divided out

    @property
    def current(self) -> Moments | None:
        """None until the first update."""
        if self._weight == 0.0:
            return None
        return Moments(self._mean, self._unit(self._mean) * self._variance / self._weight)

    def update(self, step: Moments) -> None:
        """Take in the moments of one optimizer step."""
        self._mean = step.mean
        unit = self._unit(step.mean)
        self._variance = DECAY * self._variance + (1 - DECAY) * (step.variance / unit if unit > 0.0 else 0.0)
        self._weight = DECAY * self._weight + (1 - DECAY)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {"mean": self._mean, "variance": self._variance, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._mean, self._variance, self._weight = state["mean"], state["variance"], state["weight"]

    def _unit(self, mean: float) -> float:
        return mean**2 if self._relative else 1.0
