"""The gain to expect of weights, from the norms and alignments of samples, without training with them.

Weights w give a step the signal (mean w a)² and the noise mean w² n / N, so that their quality is
Q(w) = (mean w a)² / mean w² n, whatever common factor they have. The gain η(w) = Q(w) / Q(1) is what they are worth in
batch size: weighted steps do as well as uniform ones of η times as many samples.
"""

import torch
from torch import Tensor

from presence_ds.reweighting.building import build_weight_function
from presence_ds.reweighting.config import ReweightingConfig, WeightingConfig
from presence_ds.reweighting.samples import Samples
from presence_ds.reweighting.schedule import ScheduleConfig
from presence_ds.reweighting.signals import signal_values


def _at(tau: float, **fields: object) -> ReweightingConfig:
    return ReweightingConfig("paper", schedule=ScheduleConfig("constant", tau_direct=tau), **fields)  # type: ignore[arg-type]


UNIFORM = "uniform"  # always the first
COMPARED: dict[str, ReweightingConfig] = {  # what is always compared
    UNIFORM: ReweightingConfig("uniform"),
    "paper_direct": _at(1.0),
    "paper_inverse": _at(-1.0),
    "clip": ReweightingConfig("clip"),
    "normalized": ReweightingConfig(weighting=WeightingConfig("normalized")),
    "loss_saturating": _at(-2.0, signal="loss", weighting=WeightingConfig("saturating")),
    "calibrated": ReweightingConfig("calibrated"),
}


class Candidate:
    """Weights that are not trained with."""

    def __init__(self, config: ReweightingConfig) -> None:
        """``config`` is validated, and has no τ that changes."""
        self._config = config
        self._tau = config.schedule.tau_direct if config.has_temperature else 1.0
        self.function = build_weight_function(config)

    def weights(self, samples: Samples, noise: Tensor, signal: Tensor) -> Tensor:
        """Weights of one step's samples after the other's, in units of the step's mean: [steps, n] float64.

        Calibrated weights come from steps before, and learn from these.

        Args:
            samples: of steps that have as many that count, their fields [steps, n].
            noise, signal: [steps, n], as of `in_units`.
        """
        values = signal_values(self._config, samples)
        figures = self.function.fit(values)
        if self._config.calibrates:
            terms: Tensor = self.function.learn(values, figures, noise, signal)
        else:
            terms = self.function.terms(values, figures, self._tau, complete=True)
        return terms / terms.mean(-1, keepdim=True)


def in_units(scores: Tensor, usefulness: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """n and a ([..., n] float64 each) in the `Unit` of every step ([...] float64); 0 where that is 0."""
    unit = units[..., None]
    return torch.where(unit > 0, scores.double() / unit, 0.0), torch.where(unit > 0, usefulness.double() / unit, 0.0)


def quality_sums(weights: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """mean w a and mean w² n of a step, [..., 2]; arguments [..., n], as of `in_units`."""
    return torch.stack([(weights * signal).mean(-1), (weights.square() * noise).mean(-1)], dim=-1)


def gains(sums: Tensor) -> Tensor:
    """η of weightings from `quality_sums` over steps ([..., weightings, 2], the first uniform): [..., weightings].

    Below 0 where weights turn the step against the gradient; NaN where uniform steps have no signal either.
    """
    signal, noise = sums.unbind(-1)
    quality = signal * signal.abs() / noise
    uniform = quality[..., :1]
    return torch.where(uniform > 0, quality / uniform, torch.nan)


def speedup(gain: float, noise_scale: float, samples: float) -> float:
    """Steps of uniform weights over those of weights of ``gain`` η > 0: (1 + B_noise/B) / (1 + B_noise/(ηB)).

    Args:
        noise_scale: B_noise, in samples.
        samples: B, of a step.
    """
    ratio = noise_scale / samples
    return (1.0 + ratio) / (1.0 + ratio / gain)
