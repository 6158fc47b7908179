"""Weight functions: from the values of a signal to unnormalised weights u; w_i = u_i / Σ_j u_j over the optimizer step.

Some take z-scores (`Tempered`), which a normaliser makes, and a temperature τ; some the raw values.
"""

from collections.abc import Callable
from math import exp, inf, isfinite, log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from presence_ds.reweighting.normalizers import Moments, Normalizer, Running

MAX_EXPONENT = 20.0
LEVEL_DECAY = 0.5  # of a running c, per optimizer step
BISECTIONS = 50
LARGEST_FACTOR = 10.0  # of a normalized gradient


class WeightFunction:
    """Weighs samples by figures that are fitted to a step or expected of it; the base has none.

    `fit`, and `terms` of complete steps, also take many steps at once: [steps, n].

    Attributes:
        is_bounded: whether u is limited to a few times its mean, whatever the values.
    """

    is_bounded = False

    def fit(self, values: Tensor) -> Any:
        """Figures of ``values`` ([n], finite, n ≥ 1); None where the kind has none."""
        return None

    def running(self) -> Running | None:
        """An empty store of earlier steps' figures; None where the kind has none."""
        return None

    def terms(self, values: Tensor, figures: Any, tau: float, *, complete: bool) -> Tensor:
        """Unnormalised weights u of ``values`` ([n], finite, n ≥ 1), [n] float64, not negative.

        ``complete``: whether ``values`` are all finite samples of the step, and ``figures`` their own.
        """
        raise NotImplementedError

    def learn(self, values: Tensor, figures: Any, noise: Tensor, signal: Tensor) -> Any:
        """Take in finished steps: the squared norm of each of their samples, and how far it agreed with the others.

        ``noise`` and ``signal`` are [steps, n] float64, in a unit of every step.
        """

    def describe(self, figures: Any, tau: float) -> dict[str, float]:
        """The figures, and what comes of ``tau``, by the names they have in the statistics."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What was learned, for the checkpoint; empty where nothing is."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class Uniform(WeightFunction):
    """Every sample alike, whatever its score: the baseline."""

    is_bounded = True

    def terms(self, values: Tensor, figures: Any, tau: float, *, complete: bool) -> Tensor:
        return torch.ones_like(values, dtype=torch.float64)


class Tempered(WeightFunction):
    """u_i = f(z_i, τ) with z the normalised values.

    With τ > 0 a high score gains weight, with τ < 0 it loses weight, whatever the signal: for self-influence, leverage
    and loss τ < 0 is caution, for alignment, where a high score is a useful sample, τ > 0 is.
    """

    def __init__(self, normalizer: Normalizer) -> None:
        self._normalizer = normalizer

    def of_z_scores(self, z: Tensor, tau: float, *, complete: bool) -> Tensor:
        """As `terms`, of normalised scores ``z`` ([n] float64) at the signed temperature ``tau``."""
        raise NotImplementedError

    def fit(self, values: Tensor) -> Moments | None:
        return self._normalizer.fit(values)

    def running(self) -> Running | None:
        return self._normalizer.running()

    def terms(self, values: Tensor, figures: Moments | None, tau: float, *, complete: bool) -> Tensor:
        if not complete and figures is not None and not figures.is_spread:  # earlier scores tell no spread
            return torch.ones_like(values, dtype=torch.float64)
        return self.of_z_scores(self._normalizer.apply(values, figures), tau, complete=complete)

    def describe(self, figures: Moments | None, tau: float) -> dict[str, float]:
        return {} if figures is None else {"normalizer_mean": figures.mean, "normalizer_std": figures.std}


class Softmax(Tempered):
    """The paper's (equation 8): u_i = exp(τ z_i).

    Of a complete step u is divided by the largest, which the weights do not see. With the figures of earlier steps that
    one is not known when the first samples are weighed. The exponent is limited to ±20 there: a factor of e²⁰ already
    leaves one sample nearly all the weight, while an unlimited one would overflow the accumulated gradient or its norm.
    """

    def of_z_scores(self, z: Tensor, tau: float, *, complete: bool) -> Tensor:
        exponent = tau * z
        if complete:
            return (exponent - exponent.amax(-1, keepdim=True)).exp()
        return exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp()


class Saturating(Tempered):
    """Only one tail loses weight: u_i = 2 σ(−|τ| e_i), σ the logistic function and e_i how far z_i lies in the tail.

    With τ < 0 the tail is above the threshold, e_i = max(0, z_i − threshold); with τ > 0 it is below the negative
    threshold, e_i = max(0, −z_i − threshold). So the sign of τ means what it means to the softmax. Outside the tail
    u is exactly 1: those samples keep equal weights, and the effective sample size stays near the number of samples.
    Far in the tail u falls off as 2 exp(−|τ| e). τ = 0 leaves every weight alike; a large |τ| cuts the tail off.
    The exponent is limited to 20, so that a step of nothing but tail, as figures of earlier steps can make it appear,
    keeps a positive sum.
    """

    def __init__(self, normalizer: Normalizer, threshold: float) -> None:
        """``threshold``: where the tail begins, in standard deviations from the mean, 0 or more."""
        super().__init__(normalizer)
        self._threshold = threshold

    def of_z_scores(self, z: Tensor, tau: float, *, complete: bool) -> Tensor:
        excess = ((z if tau < 0 else -z) - self._threshold).clamp(min=0.0)
        return 2.0 * (-abs(tau) * excess).clamp(min=-MAX_EXPONENT).sigmoid()


class Clip(WeightFunction):
    """u_i = min(1, √(c / s_i)), so that u_i² s_i ≤ c: no sample's self-influence counts for more than c.

    That is gradient clipping per sample, at the norm √c, with no second pass. c is a quantile of the self-influences
    above 0 (a sample without a gradient tells nothing of their scale), of the step or of the steps before it; infinite
    if all are 0, so that every u is 1. Values are raw self-influences; normaliser and temperature play no part.
    """

    def __init__(self, quantile: float, most: float = 1.0) -> None:
        """``quantile`` is above 0 and at most 1; ``most``: what u is limited to."""
        self._quantile = quantile
        self._most = most

    def fit(self, values: Tensor) -> Any:
        if values.dim() > 1:
            return _quantiles_above_0(values.double(), self._quantile).nan_to_num(inf)
        positive = values[values > 0].double()
        return positive.quantile(self._quantile).item() if len(positive) else inf

    def running(self) -> "RunningLevel":
        return RunningLevel()

    def terms(self, values: Tensor, figures: Any, tau: float, *, complete: bool) -> Tensor:
        assert figures is not None
        return (figures / values.double()).sqrt().clamp(max=self._most)

    def describe(self, figures: float, tau: float) -> dict[str, float]:
        return {"clip_level": figures} if isfinite(figures) else {}


class Normalized(Clip):
    """u_i = √(c / s_i), every gradient at the same length, c the median; a gradient next to 0 is not blown up."""

    def __init__(self) -> None:
        super().__init__(0.5, LARGEST_FACTOR)

    def describe(self, figures: float, tau: float) -> dict[str, float]:
        return {}


class RunningLevel(Running):
    """c expected of the next optimizer step: exp of a decaying average of log c over earlier ones.

    Self-influence falls by orders of magnitude early in training, and an error in c, unlike one in the softmax's μ,
    does not cancel: too large a c clips nothing. So the memory is short: the average lags one step behind the last one
    and still takes two thirds of the quantile's sampling variance away.
    """

    STATE = ("log", "weight")

    def __init__(self) -> None:
        self.log = self.weight = 0.0

    @property
    def current(self) -> float | None:
        return exp(self.log / self.weight) if self.weight else None

    def update(self, figures: float) -> None:
        if isfinite(figures):  # an infinite one tells nothing
            self.log = LEVEL_DECAY * self.log + (1 - LEVEL_DECAY) * log(figures)
            self.weight = LEVEL_DECAY * self.weight + (1 - LEVEL_DECAY)


def _quantiles_above_0(values: Tensor, quantile: float) -> Tensor:
    """Of the ``values`` ([steps, n] float64) above 0, [steps, 1]; NaN of none.

    As nanquantile gives them, which takes several times as long, and no more than 2²⁴ values.
    """
    positive = values > 0
    ordered = torch.from_numpy(np.sort(values.masked_fill(~positive, torch.nan).numpy(), axis=-1))  # NaN comes last
    place = quantile * (positive.sum(-1, keepdim=True) - 1).clamp(min=0).double()
    below, above = (ordered.gather(-1, edge.long()) for edge in (place.floor(), place.ceil()))
    return torch.lerp(below, above, place.frac())


def effective_sample_size(terms: Tensor) -> float:
    """1 / Σ w² of the weights w = u / Σ u, from unnormalised weights u ([n] float64, some positive)."""
    return (terms.sum().square() / terms.square().sum()).item()


def tau_with_floor(terms: Callable[[float], Tensor], tau: float, floor: float) -> float:
    """``tau``, or the largest temperature of the same sign that keeps the effective sample size at ``floor``.

    The effective sample size falls steadily as |τ| grows (softmax and saturating weights alike), from the number of
    samples at τ = 0, so bisection finds it: always with the same number of halvings, and on every rank alike.

    Args:
        terms: unnormalised weights at a temperature.
        tau: the scheduled temperature.
        floor: below the number of samples.
    """
    if effective_sample_size(terms(tau)) >= floor:
        return tau
    kept, broken = 0.0, tau
    for _ in range(BISECTIONS):
        middle = (kept + broken) / 2
        if effective_sample_size(terms(middle)) >= floor:
            kept = middle
        else:
            broken = middle
    return kept
