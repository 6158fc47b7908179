"""Schedule ``auto``: notices when the loss has stopped falling fast."""

from math import sqrt
from typing import Any

CONFIDENCE = 3.0  # standard errors
SUMS = ("ages", "squared_ages", "weights", "squared_weights", "losses", "aged_losses", "squared_losses")


class Slowdown:
    """Watches how fast a loss falls, and says when that has become slow.

    The rate is the slope of a straight line through the losses so far by weighted least squares, with weights
    exp(−age / window); it comes with its standard error. Both bounds below are cautious by three standard errors, so
    neither noise, nor a single bad step, nor a flat start (warm-up) passes for a slowdown:
    - the fastest fall is the largest rate − 3 errors seen, from step 2·window on (before that the line has no length);
    - the fall is slow once rate + 3 errors is below ``share`` of it.

    Scale does not matter: a factor in all losses, or an offset, leaves the answer as it is. Plain arithmetic in a fixed
    order on a few sums, which are all the state.
    """

    def __init__(self, window: int, share: float) -> None:
        """``window`` in optimizer steps, above 1; ``share`` between 0 and 1."""
        self._decay = 1.0 - 1.0 / window
        self._warm_up = 2 * window
        self._share = share
        self._steps = 0
        self._first = 0.0  # subtracted from every loss: a constant one then has a rate of 0, not one of rounding
        self._fastest = 0.0
        self._sums = dict.fromkeys(SUMS, 0.0)

    def observe(self, loss: float) -> bool:
        """Take in the next step's mean loss; whether the fall is slow by now."""
        if self._steps == 0:
            self._first = loss
        self._steps += 1
        self._take_in(loss - self._first)
        if self._steps < self._warm_up:
            return False
        rate, error = self._line(self._sums)
        self._fastest = max(self._fastest, rate - CONFIDENCE * error)
        return self._fastest > 0.0 and rate + CONFIDENCE * error < self._share * self._fastest

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {"steps": self._steps, "first": self._first, "fastest": self._fastest, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps, self._first, self._fastest = state["steps"], state["first"], state["fastest"]
        self._sums = dict(state["sums"])

    def _take_in(self, loss: float) -> None:
        """Every earlier step has aged by one; ``loss`` is of age 0."""
        sums, decay = self._sums, self._decay
        sums["squared_ages"] = decay * (sums["squared_ages"] + 2 * sums["ages"] + sums["weights"])
        sums["ages"] = decay * (sums["ages"] + sums["weights"])
        sums["aged_losses"] = decay * (sums["aged_losses"] + sums["losses"])
        sums["weights"] = decay * sums["weights"] + 1.0
        sums["squared_weights"] = decay**2 * sums["squared_weights"] + 1.0
        sums["losses"] = decay * sums["losses"] + loss
        sums["squared_losses"] = decay * sums["squared_losses"] + loss**2

    @staticmethod
    def _line(sums: dict[str, float]) -> tuple[float, float]:
        """Fall per step and its standard error, by weighted least squares."""
        weight = sums["weights"]
        age, mean = sums["ages"] / weight, sums["losses"] / weight
        age_variance = sums["squared_ages"] / weight - age**2
        covariance = sums["aged_losses"] / weight - age * mean
        residual = max(sums["squared_losses"] / weight - mean**2 - covariance**2 / age_variance, 0.0)
        steps = weight**2 / sums["squared_weights"]  # effective number of those that the line rests on
        return covariance / age_variance, sqrt(residual / age_variance / (steps - 2.0))
