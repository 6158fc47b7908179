"""Mean and variance of the scores, for the normaliser (equation 7)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

EPSILON = 1e-24  # of equation 7, in the unit of σ²: far below the variance of any scores that differ
DECAY = 0.9  # of the running relative variance, per optimizer step


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

    def normalize(self, scores: Tensor) -> Tensor:
        """z-scores, equation 7, in float64."""
        return (scores.double() - self.mean) / self.std


class RunningMoments:
    """Moments expected of the next optimizer step, from those of earlier ones.

    With several accumulation steps a sample must be weighed before the step's last samples have been scored, so the
    normaliser cannot come from the step itself. Self-influence falls by orders of magnitude early in training, all
    samples' together: an average of σ² would be that of long ago and leave every weight uniform. So the level μ is the
    last step's, and what is averaged, with exponentially decaying weights, is the spread relative to it, σ²/μ².
    (An error in μ cancels in the softmax; only σ matters to the weights.)
    """

    def __init__(self) -> None:
        self._mean = 0.0
        self._relative_variance = self._weight = 0.0  # decayed sums: the start at zero is divided out

    @property
    def current(self) -> Moments | None:
        """None until the first update."""
        if self._weight == 0.0:
            return None
        return Moments(self._mean, self._mean**2 * self._relative_variance / self._weight)

    def update(self, step: Moments) -> None:
        """Take in the moments of one optimizer step; scores are not negative."""
        self._mean = step.mean
        relative = step.variance / step.mean**2 if step.mean > 0.0 else 0.0
        self._relative_variance = DECAY * self._relative_variance + (1 - DECAY) * relative
        self._weight = DECAY * self._weight + (1 - DECAY)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {"mean": self._mean, "relative_variance": self._relative_variance, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._mean, self._weight = state["mean"], state["weight"]
        self._relative_variance = state["relative_variance"]
