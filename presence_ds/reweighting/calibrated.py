"""Calibrated weights: what samples like this one were worth in the steps before, per unit of their gradient's noise.

With n_i the squared norm of a sample's gradient and a_i its alignment with the mean gradient of the others, weights w
have the quality Q(w) = (mean w a)² / mean w² n: the signal of the weighted step, squared, over its noise. Among
w = φᵀβ, φ_i features of the sample, the best are β = M⁻¹ v with M = mean n φφᵀ and v = mean a φ: a regression of a/n on
φ, weighted by n. Both are averaged over past steps, so that no sample has a say in its own weight.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from presence_ds.reweighting.config import Feature
from presence_ds.reweighting.normalizers import LogZScore, Moments, Running, RunningMoments, ZScore
from presence_ds.reweighting.weight_functions import WeightFunction

DECAY = 0.98  # of every sum, per optimizer step
RIDGE = 0.1  # on all features but the constant, in units of the mean squared norm
KNOTS = (-1.5, -0.5, 0.0, 0.5, 1.0)
LARGEST_Z = 5.0
LEAST, MOST = 0.05, 3.0  # of a weight, in units of the mean
FIT_STEPS, TRIAL_STEPS = 20, 10  # of earlier ones, before weights are fitted to them, and before a fit is followed
SUMMED = 64  # steps, in one product
MOST_SOURCES = 128  # all others are taken together with the last

SCORES, LOSSES, TARGETS, SOURCES, SHARES, MOMENTA = range(6)  # columns of the values


class Column(NamedTuple):
    """A column of the values that enters by its z-score, and by hinges of it at ``knots``.

    ``relative``: as of `RunningMoments`.
    """

    place: int
    normalizer: ZScore | LogZScore
    relative: bool
    knots: tuple[float, ...] = KNOTS


COLUMNS: dict[Feature, Column] = {
    "norm": Column(SCORES, LogZScore(), relative=False),
    "loss": Column(LOSSES, ZScore(), relative=True),
    "vocabulary": Column(SHARES, LogZScore(), relative=False, knots=()),
    "momentum": Column(MOMENTA, ZScore(), relative=False, knots=()),
    "length": Column(TARGETS, LogZScore(), relative=False),
}


class State(NamedTuple):
    """Decayed sums over steps, float64.

    Attributes:
        steps: [2] (or [steps, 2]) of ones, for the steps in ``fit`` and those in ``trial``.
        fit: [F, F + 1] (or [steps, F, F + 1]), M with v as its last column.
        trial: [..., 5] mean a, ua, n, un, u²n of u = w − 1, w the fitted weights of every step by the steps before it.
        spread: [...] squares of what each step adds to the slope of the quality in the strength of the weights.
    """

    steps: Tensor
    fit: Tensor
    trial: Tensor
    spread: Tensor


class Calibrated(WeightFunction):
    """u_i = 1 + s (w_i − 1), w_i = φ_iᵀβ with an n-weighted mean of 1, within [0.05, 3], and s ∈ [0, 1] a strength.

    Features are a constant, z-scores within the step (of log n, of the loss, of the logarithm of the number of targets,
    with hinges at `KNOTS`; of the logarithm of the share that embeddings and head have in n; of the alignment with the
    direction of the steps before, by √n), and which source a sample is of.

    How far to follow a fit is decided on steps that it was not made from: with A(s), V(s) the mean w a and w² n over
    past steps, each with the weights fitted before it, s is where A²/V is highest, had every step's slope been lower by
    one standard error. So weights stay uniform until earlier fits have proven their worth, and where there is nothing
    to gain. τ is a further factor of s, 1 unless the effective sample size asks for less.

    Values are [..., 6] float64: squared norm n, loss, number of targets, source, the share of n that is in embeddings
    and head, and the alignment with the direction of the steps before by √n; the last two 0 where they are not known.
    """

    is_bounded = True

    def __init__(self, features: list[Feature]) -> None:
        """``features``: what enters φ beside the constant."""
        self._columns = [name for name in COLUMNS if name in set(features)]
        self._has_sources = "source" in features
        self._state = State(*(torch.zeros(size, dtype=torch.float64) for size in ((2,), (1, 2), (5,), ())))

    @property
    def strength(self) -> float:
        """s of the step to come."""
        return _strength(self._state).item()

    def fit(self, values: Tensor) -> dict[Feature, Moments]:
        return {name: COLUMNS[name].normalizer.fit(values[..., COLUMNS[name].place]) for name in self._columns}

    def running(self) -> "RunningColumns":
        return RunningColumns(self._columns)

    def describe(self, figures: Any, tau: float) -> dict[str, float]:
        return {"calibration_strength": tau * self.strength}

    def terms(self, values: Tensor, figures: dict[Feature, Moments], tau: float, *, complete: bool) -> Tensor:
        features = self._of(values, figures)
        state = self._grown(features.shape[-1])
        return 1.0 + tau * _strength(state) * (_fitted(features, state) - 1.0)

    def learn(self, values: Tensor, figures: dict[Feature, Moments], noise: Tensor, signal: Tensor) -> Tensor:
        """Take in steps, one after the other: the weights that each had by those before it, [steps, n] float64.

        Args:
            values: [steps, n, 6].
            figures: that the samples are standardised by, of every step.
            noise, signal: [steps, n] float64, n_i and a_i in the `Unit` of every step.
        """
        features = self._of(values, figures)
        state = self._grown(features.shape[-1])
        products = features.mT @ torch.cat([features * noise[..., None], signal[..., None]], dim=-1) / noise.shape[-1]
        fits, fit = _decayed(state.fit, products)
        ages, age = _decayed(state.steps[0], torch.ones(len(noise), dtype=torch.float64))
        before = state._replace(steps=torch.stack([ages, ages], dim=-1), fit=fits)  # trials follow

        excess = _fitted(features, before) - 1.0
        tries = _is_ready(before).double()
        figures_of = [signal, excess * signal, noise, excess * noise, excess.square() * noise]
        tried = torch.stack([figure.mean(-1) for figure in figures_of], dim=-1) * tries[:, None]
        trials, trial = _decayed(state.trial, tried)
        trial_ages, trial_age = _decayed(state.steps[1], tries)
        slopes = tried[:, 1] - _ratio(trials[:, 0], trials[:, 2]) * tried[:, 3]
        spreads, spread = _decayed(state.spread, slopes.square(), DECAY**2)
        self._state = State(torch.stack([age, trial_age]), fit, trial, spread)
        before = State(torch.stack([ages, trial_ages], dim=-1), fits, trials, spreads)
        return 1.0 + _strength(before)[:, None] * excess

    def state_dict(self) -> dict[str, Any]:
        """Tensors on the host; none is changed in place."""
        return self._state._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, on the host whatever the checkpoint was read to."""
        self._state = State(**{name: value.cpu() for name, value in state.items()})

    def _of(self, values: Tensor, figures: dict[Feature, Moments]) -> Tensor:
        """φ: [..., F]."""
        parts = [torch.ones(*values.shape[:-1], 1, dtype=torch.float64)]
        for name, moments in figures.items():
            z = COLUMNS[name].normalizer.apply(values[..., COLUMNS[name].place], moments)
            z = torch.where(torch.as_tensor(moments.is_spread), z.clamp(-LARGEST_Z, LARGEST_Z), 0.0)
            parts.append(torch.stack([z, *((z - knot).clamp(min=0.0) for knot in COLUMNS[name].knots)], dim=-1))
        if self._has_sources:
            known = self._state.fit.shape[0] - sum(part.shape[-1] for part in parts)
            sources = values[..., SOURCES].long().clamp(max=MOST_SOURCES - 1)
            number = max(known, int(sources.max()) + 1)
            parts.append(torch.nn.functional.one_hot(sources, number).double())
        return torch.cat(parts, dim=-1)

    def _grown(self, features: int) -> State:
        """The state with as many features, those it has not seen being 0."""
        fit = self._state.fit
        more = features - fit.shape[0]
        second, first = pad(fit[:, :-1], (0, more, 0, more)), pad(fit[:, -1:], (0, 0, 0, more))
        return self._state._replace(fit=torch.cat([second, first], dim=1))


class RunningColumns(Running):
    """Moments of every column expected of the next optimizer step."""

    def __init__(self, names: Sequence[Feature]) -> None:
        """``names`` of `COLUMNS`."""
        self._moments = {name: RunningMoments(relative=COLUMNS[name].relative) for name in names}

    @property
    def current(self) -> dict[Feature, Moments] | None:
        found = {name: running.current for name, running in self._moments.items() if running.current is not None}
        return found if len(found) == len(self._moments) else None

    def update(self, figures: dict[Feature, Moments]) -> None:
        for name, moments in figures.items():
            self._moments[name].update(moments)

    def state_dict(self) -> dict[str, Any]:
        return {name: running.state_dict() for name, running in self._moments.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, running in self._moments.items():
            running.load_state_dict(state[name])


def _weight_of(steps: int) -> float:
    """Decayed sum of ones over as many steps, but for rounding."""
    return (1 - DECAY**steps) / (1 - DECAY) - 1e-6


def _decayed(before: Tensor, added: Tensor, decay: float = DECAY) -> tuple[Tensor, Tensor]:
    """Decayed sums before each of the steps ``added`` ([steps, ...]), and after the last."""
    place = torch.arange(min(SUMMED, len(added)))
    age = place[:, None] - place - 1  # of a step, seen from a later one
    weights = torch.where(age >= 0, decay ** age.double().clamp(min=0.0), 0.0)
    fade = (decay ** place.double()).view(-1, *[1] * before.dim())
    sums = []
    for block in added.split(SUMMED):
        steps = len(block)
        within = (weights[:steps, :steps] @ block.reshape(steps, -1)).view_as(block)
        sums.append(fade[:steps] * before + within)
        before = decay * sums[-1][-1] + block[-1]
    return torch.cat(sums), before


def _is_ready(state: State) -> Tensor:
    """Whether there were steps enough to fit weights to, and an alignment with anything: [...] bool."""
    noise, signal = state.fit[..., 0, 0], state.fit[..., 0, -1]
    return (state.steps[..., 0] >= _weight_of(FIT_STEPS)) & (noise > 0) & (signal > 0)


def _fitted(features: Tensor, state: State) -> Tensor:
    """w of samples with ``features`` [..., n, F]: [..., n]."""
    ready, fit = _is_ready(state), state.fit
    identity = torch.eye(fit.shape[-2], dtype=torch.float64)
    ridge = RIDGE * identity
    ridge[0, 0] = 0.0
    sums = fit / torch.where(ready, fit[..., 0, 0], 1.0)[..., None, None]
    second = torch.where(ready[..., None, None], sums[..., :-1] + ridge, identity)
    first = sums[..., -1]
    level = torch.where(ready, first[..., 0], 1.0)[..., None]
    weights = (features @ torch.linalg.solve(second, first)[..., None])[..., 0] / level
    return torch.where(ready[..., None], weights.clamp(LEAST, MOST), 1.0)


def _strength(state: State) -> Tensor:
    """s: [...].

    Of A(s) = A₀ + s A₁ and V(s) = V₀ + 2 s V₁ + s² V₂, A²/V is highest at s = (A₁V₀ − A₀V₁) / (A₀V₂ − A₁V₁). Divided
    by V₀ the numerator is the sum of what every step adds to the slope at s = 0, a₁ − (A₀/V₀) v₁, and has an error.
    """
    a0, a1, v0, v1, v2 = state.trial.unbind(-1)
    slope = a1 - _ratio(a0, v0) * v1 - state.spread.sqrt()
    bend = _ratio(a0, v0) * v2 - _ratio(a1, v0) * v1
    proven = (state.steps[..., 1] >= _weight_of(TRIAL_STEPS)) & (a0 > 0) & (bend > 0)
    return torch.where(proven, slope / torch.where(proven, bend, 1.0), 0.0).clamp(0.0, 1.0)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / b, 0.0)
