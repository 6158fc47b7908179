"""Weighting ``clip``: every sample's self-influence is bounded."""

from math import exp, inf, isfinite, log
from typing import Any

from torch import Tensor

DECAY = 0.5  # per optimizer step


class Clip:
    """u_i = min(1, √(c / s_i)), so that u_i² s_i ≤ c: no sample's self-influence counts for more than c.

    That is gradient clipping per sample, at the norm √c, with no second pass. c is a quantile of the self-influences
    above 0 (a sample without a gradient tells nothing of their scale), of the step or of the steps before it.
    Normaliser and temperature play no part.
    """

    def __init__(self, quantile: float) -> None:
        """``quantile`` is above 0 and at most 1."""
        self._quantile = quantile

    def fit(self, values: Tensor) -> float:
        """c of ``values`` ([n] raw self-influences, finite, n ≥ 1); infinite if all are 0, so that every u is 1."""
        positive = values[values > 0].double()
        return positive.quantile(self._quantile).item() if len(positive) else inf

    def running(self) -> "RunningLevel":
        """An empty store of earlier steps' c."""
        return RunningLevel()

    def terms(self, values: Tensor, level: float | None, tau: float, *, complete: bool) -> Tensor:
        """u, [n] float64, of raw self-influences ``values`` ([n]); ``level`` is c."""
        assert level is not None
        return (level / values.double()).sqrt().clamp(max=1.0)

    def describe(self, level: float | None) -> dict[str, float]:
        """``clip_level``, c."""
        return {} if level is None or not isfinite(level) else {"clip_level": level}


class RunningLevel:
    """c expected of the next optimizer step: exp of a decaying average of log c over earlier ones.

    Self-influence falls by orders of magnitude early in training, and an error in c, unlike one in the softmax's μ,
    does not cancel: too large a c clips nothing. So the memory is short: the average lags one step behind the last one
    and still takes two thirds of the quantile's sampling variance away.
    """

    def __init__(self) -> None:
        self._log = self._weight = 0.0  # decayed sums: the start at zero is divided out

    @property
    def current(self) -> float | None:
        """None until the first update."""
        return exp(self._log / self._weight) if self._weight else None

    def update(self, level: float) -> None:
        """Take in c of one optimizer step; an infinite one tells nothing."""
        if isfinite(level):
            self._log = DECAY * self._log + (1 - DECAY) * log(level)
            self._weight = DECAY * self._weight + (1 - DECAY)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {"log": self._log, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._log, self._weight = state["log"], state["weight"]
