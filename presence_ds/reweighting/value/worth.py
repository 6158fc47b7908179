"""What a run's weights and sources have been worth lately, from figures that its steps have anyway."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from presence_ds.reweighting.config import ReweightingConfig, WeightingConfig
from presence_ds.reweighting.samples import Samples
from presence_ds.reweighting.value.gain import COMPARED, UNIFORM, Candidate, gains, in_units, quality_sums, speedup
from presence_ds.reweighting.value.noise_scale import NoiseScale
from presence_ds.reweighting.value.sources import SourceWorth, relative, source_sums, source_worth
from presence_ds.reweighting.value.unit import Unit
from presence_ds.reweighting.value.window import Window, estimate

STEPS = 200  # of the window
IN_USE = "in_use"
WEIGHING = (  # fields of a configuration that decide on weights, or on what they are good for
    *("signal", "normalizer", "weighting_kind", "weighting", "schedule", "min_effective_share", "alignment_with"),
    *("damping", "layers", "loss_normalizer"),
)


class Gain(NamedTuple):
    """What weights are worth.

    Attributes:
        gain: η, in batch size; 1 for uniform weights.
        error: its standard error.
        speedup: how many times fewer steps are needed at this batch size, as the noise scale has it; NaN where η is not
            above 0 or the noise scale is not known.
    """

    gain: float
    error: float
    speedup: float


class Worth:
    """Gains of weightings and verdicts on sources over a sliding window of steps, and the noise scale.

    Steps with fewer than two samples that count tell nothing.

    Attributes:
        noise_scale: of late.
        moments: `gradient_moments` of the step observed last.
    """

    def __init__(self, config: ReweightingConfig) -> None:
        """``config`` is that of the weights in use."""
        self._with_reference = config.alignment_with == "reference"
        calibrated = WeightingConfig("calibrated", features=config.weighting.features)
        compared = COMPARED | {"calibrated": ReweightingConfig(weighting=calibrated)}
        unchanged = not config.weighting.placebo and config.min_effective_share is None
        self._uses_calibrated = config.calibrates and unchanged
        if self._uses_calibrated:  # and need not be fitted twice
            del compared["calibrated"]
        self._candidates = {name: Candidate(candidate) for name, candidate in compared.items()}
        self._gains = Window(STEPS)
        self._sources = Window(STEPS)
        self._samples = Window(STEPS)
        self.noise_scale = NoiseScale()
        self.moments = (0.0, 0.0)
        self._unit = Unit()
        self._waiting: tuple[Samples, Tensor, Tensor, Tensor] | None = None
        self._of = repr([getattr(config, name, None) for name in WEIGHING])

    def observe(self, samples: Samples, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Take in a step of two samples or more; most of it is done when it is asked for.

        Args:
            samples: those of the step that count.
            weights: [n] float64, theirs.

        Returns:
            what `in_units` gives of them.
        """
        self._settle()
        assert samples.scores is not None
        square, rest = self.moments = gradient_moments(samples)
        unit = self._unit.take(square + rest, len(samples))
        if unit > 0:
            self.noise_scale.update(square / unit, rest / unit, samples.targets.double().mean().item())
        usefulness = samples.usefulness(with_reference=self._with_reference)
        noise, signal = in_units(samples.scores, usefulness, torch.tensor(unit, dtype=torch.float64))
        self._waiting = samples, weights, noise, signal
        return noise, signal

    def _settle(self) -> None:
        if self._waiting is None:
            return
        (samples, weights, noise, signal), self._waiting = self._waiting, None
        step = Samples(**{name: value[None] for name, value in vars(samples).items() if value is not None})
        every = [candidate.weights(step, noise[None], signal[None])[0] for candidate in self._candidates.values()]
        every.append(weights / weights.mean())
        self._gains.add(quality_sums(torch.stack(every), noise, signal))
        self._sources.add(source_sums(samples.sources, noise, signal))
        self._samples.add(torch.tensor([float(len(samples)), 1.0], dtype=torch.float64))

    @property
    def gains(self) -> dict[str, Gain]:
        """Of the weights in use (`IN_USE`) and of every compared one; empty where nothing can be told yet.

        That is so with too few steps for an error, and where the samples' alignment is not above 0 by two errors.
        """
        self._settle()
        sums, numbers = self._gains.sums, self._samples.sums
        if sums is None or numbers is None:
            return {}
        found = told_gains(sums, numbers, [*self._candidates, IN_USE], self.noise_scale)
        return found | {"calibrated": found[IN_USE]} if found and self._uses_calibrated else found

    @property
    def sources(self) -> dict[int, SourceWorth]:
        """Of every source that has occurred, by its id."""
        self._settle()
        sums = self._sources.sums
        return {} if sums is None else source_worth(*estimate(sums, relative))

    def figures(self) -> dict[str, float]:
        """Gains as numbers by their names in the metrics; nothing that is not finite."""
        found: dict[str, float] = {}
        for name, (gain, error, faster) in self.gains.items():
            if name != UNIFORM:
                found |= {f"gain/{name}": gain, f"gain/{name}_error": error, f"gain/{name}_speedup": faster}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint, on the host."""
        self._settle()
        return {
            "gains": self._gains.state_dict(),
            "sources": self._sources.state_dict(),
            "samples": self._samples.state_dict(),
            "noise_scale": self.noise_scale.state_dict(),
            "unit": self._unit.state_dict(),
            "candidates": {name: candidate.function.state_dict() for name, candidate in self._candidates.items()},
            "of": self._of,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; with other weights, or of another gradient, it begins anew."""
        self._waiting = None
        if state["of"] != self._of:
            return
        self.noise_scale.load_state_dict(state["noise_scale"])
        self._unit.load_state_dict(state["unit"])
        for name, window in (("gains", self._gains), ("sources", self._sources), ("samples", self._samples)):
            window.load_state_dict(state[name])
        for name, candidate in self._candidates.items():
            candidate.function.load_state_dict(state["candidates"][name])


def told_gains(sums: Tensor, numbers: Tensor, names: Sequence[str], scale: NoiseScale) -> dict[str, Gain]:
    """Gains by name, as `Worth.gains` tells them.

    Args:
        sums: [blocks, weightings, 2] float64 of `quality_sums`, the first weighting uniform.
        numbers: [blocks, 2] samples and steps.
        names: of the weightings.
    """
    signal, error = estimate(sums[:, 0, 0], lambda totals: totals)
    if not signal > 2.0 * error:
        return {}
    size = (numbers[:, 0].sum() / numbers[:, 1].sum()).item()
    found = {}
    for name, value, spread in zip(names, *(x.tolist() for x in estimate(sums, gains)), strict=True):
        faster = speedup(value, scale.samples, size) if scale.samples is not None and value > 0 else math.nan
        found[name] = Gain(value, spread, faster)
    return found


def gradient_moments(samples: Samples) -> tuple[float, float]:
    """‖G‖² and tr Σ of a step's samples ([n], n ≥ 2), both without bias; the first may fall below 0 by chance."""
    assert samples.scores is not None
    assert samples.alignment is not None
    square = samples.alignment.double().mean().item()
    return square, samples.scores.double().mean().item() - square
