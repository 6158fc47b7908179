"""The unit in which a step counts beside others: gradients shrink by orders of magnitude early in training."""

from math import exp, log
from typing import Any

DECAY = 0.8  # of the average of log means, per optimizer step
LARGEST = 4.0  # that a step's mean squared norm can be in its unit


class Unit:
    """The mean squared norm that steps before let expect of a step.

    Divided by its own mean, a step of few samples would discount just the samples whose gradients are large, which made
    that mean. What is expected does not depend on them, so that ratios of sums over steps have no such bias. But no
    single step, as where a loss spikes, counts more than `LARGEST` times the usual.
    """

    def __init__(self) -> None:
        self._log = self._weight = 0.0

    def take(self, mean: float) -> float:
        """The unit of the next step, whose mean squared norm is ``mean``; 0 as long as there was no gradient."""
        unit = max(exp(self._log / self._weight), mean / LARGEST) if self._weight else mean
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
