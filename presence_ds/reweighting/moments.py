"""Mean and variance of the scores, for the normaliser (equation 7)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

EPSILON = 1e-24  # of equation 7, in the unit of σ²: far below the variance of any scores that differ
DECAY = 0.9  # of the running moments, per optimizer step


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
    """Moments of earlier optimizer steps, averaged with exponentially decaying weights.

    With several accumulation steps a sample must be weighed before the step's last samples have been scored, so the
    normaliser cannot come from the step itself. The averages are of μ and of σ² and are corrected for their start at
    zero.
    """

    def __init__(self) -> None:
        self._mean = self._variance = self._weight = 0.0

    @property
    def current(self) -> Moments | None:
        """None until the first update."""
        if self._weight == 0.0:
            return None
        return Moments(self._mean / self._weight, self._variance / self._weight)

    def update(self, batch: Moments) -> None:
        """Take in the moments of one optimizer step."""
        self._mean = DECAY * self._mean + (1 - DECAY) * batch.mean
        self._variance = DECAY * self._variance + (1 - DECAY) * batch.variance
        self._weight = DECAY * self._weight + (1 - DECAY)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {"mean": self._mean, "variance": self._variance, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._mean, self._variance, self._weight = state["mean"], state["variance"], state["weight"]
