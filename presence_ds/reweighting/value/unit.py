"""The unit in which a step counts beside others: gradients shrink by orders of magnitude early in training."""

from math import exp, log, sqrt
from typing import Any

DECAY = 0.8  # of the average of log means, per optimizer step
SPREAD = 6.0  # how far, times 1/√N, the mean of N squared norms may exceed what is expected of it


class Unit:
    """The mean squared norm that steps before let expect of a step.

    Divided by its own mean, a step of few samples would discount just the samples whose gradients are large, which made
    that mean. What is expected does not depend on them, so that ratios of sums over steps have no such bias. Two
    kinds of steps are in a unit of their own making: the first, in its own mean, and one whose mean is beyond chance,
    as where the loss spikes, which counts for no more than one at its edge.
    """

    def __init__(self) -> None:
        self._log = self._weight = 0.0

    def take(self, mean: float, count: int) -> float:
        """The unit of the next step, whose ``count`` ≥ 2 squared norms have this ``mean``, in their own unit."""
        largest = 1.0 + SPREAD / sqrt(count)
        unit = max(exp(self._log / self._weight), mean / largest) if self._weight else mean
        if mean > 0.0:
            self._log = DECAY * self._log + (1 - DECAY) * log(mean)
            self._weight = DECAY * self._weight + (1 - DECAY)
        return unit

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {"log": self._log, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._log, self._weight = state["log"], state["weight"]
