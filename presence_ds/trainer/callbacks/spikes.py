"""Values far above what came before: exponentially weighted mean and variance that a spike cannot take along."""

from __future__ import annotations

import math
from typing import Any

CLIP = 3.0  # standard deviations from the mean at which a value enters the statistics


class Spikes:
    """Recognises spikes in a series of one value per step.

    A value enters mean and variance clipped at `CLIP` standard deviations, so that one spike moves them no more than a
    rare ordinary value does, and a level that stays is the new normal after a few dozen steps. Over the first steps the
    mean is the plain one, and what is clipped is not yet known.
    """

    def __init__(self, deviations: float, averaging_steps: int, warmup_steps: int) -> None:
        """A value more than ``deviations`` standard deviations above the mean is one, after ``warmup_steps`` values."""
        self._deviations = deviations
        self._averaging_steps = averaging_steps
        self._warmup_steps = warmup_steps
        self._count, self._mean, self._variance = 0, 0.0, 0.0

    def is_spike(self, value: float | None) -> bool:
        """Whether ``value`` is one; it enters the statistics. None, NaN and infinity do not, and are none."""
        if value is None or not math.isfinite(value):
            return False
        deviation = math.sqrt(self._variance)
        warm = self._count >= self._warmup_steps
        spike = warm and value > self._mean + self._deviations * max(deviation, SMALLEST * abs(self._mean))
        if warm:
            value = min(max(value, self._mean - CLIP * deviation), self._mean + CLIP * deviation)
        self._count += 1
        share = 1.0 / min(self._count, self._averaging_steps)
        difference = value - self._mean
        self._mean += share * difference
        self._variance = (1.0 - share) * (self._variance + share * difference**2)
        return spike

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers to go on from."""
        return {"count": self._count, "mean": self._mean, "variance": self._variance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._count, self._mean, self._variance = state["count"], state["mean"], state["variance"]


SMALLEST = 1e-3  # of the mean: a series that hardly varies has no spikes in its rounding
