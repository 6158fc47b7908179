"""What turns scores into weights, and which combinations cannot be had."""

from dataclasses import dataclass, field
from math import inf, isqrt
from typing import Literal

from presence_ds.errors import ConfigError
from presence_ds.reweighting.schedule import ScheduleConfig
from presence_ds.reweighting.stated import stated

Signal = Literal["self_influence", "leverage", "alignment", "loss", "uniform"]
NormalizerKind = Literal["zscore", "log_zscore", "rank"]
WeightingKind = Literal["softmax", "saturating", "clip"]
Preset = Literal["clip", "paper"]

PRESETS: dict[Preset, WeightingKind] = {"clip": "clip", "paper": "softmax"}  # what a kind that is not stated means
CLIPPED: tuple[Signal, ...] = ("self_influence", "uniform")  # signals that clipping works with

LARGEST_SIDE = 8192  # of a system of equations in float64: 512 MiB, and some seconds on a CPU
LARGEST_GATHER = 1 << 29  # float32 numbers that every rank gathers: 2 GiB
SMALLEST_DAMPING = 1e-6  # the features are float32: below this the leverage would measure their rounding


@dataclass
class WeightingConfig:
    """The weight function: unnormalised weight u of a sample with z-score z at temperature tau.

    Args:
        kind: softmax is the paper's, u = exp(tau z) (equation 8); saturating lets one tail lose weight smoothly and
            leaves all other samples alike: the tail above the threshold with tau < 0, the one below its negative with
            tau > 0; clip is u = min(1, sqrt(c / SI)), which bounds every sample's self-influence at c as gradient
            clipping per sample would, for signal self_influence, without normalizer, temperature and schedule. null:
            what the preset says.
        threshold: Saturating only: distance from the mean, in standard deviations, at which the tail begins.
        quantile: Clip only: c is this quantile of the step's self-influences, between 0 and 1.
    """

    kind: Literal["softmax", "saturating", "clip"] | None = None
    threshold: float = 0.8
    quantile: float = 0.5

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used."""
        if not 0.0 <= self.threshold < inf:
            raise ConfigError(f"{field}.threshold is {self.threshold}: it must be a finite number, 0 or more")
        if not 0.0 < self.quantile <= 1.0:
            raise ConfigError(f"{field}.quantile is {self.quantile}: it must be above 0 and at most 1")


@dataclass
class ReweightingConfig:
    """What `Reweighting` does; the fields are those of `presence_ds.PresenceConfig`.

    Attributes:
        preset: what the fields that are not stated mean; None: `chosen_preset`.
        signal: what a sample is weighed by (`presence_ds.reweighting.signal`).
        normalizer: how its values are made comparable.
        weighting: the weight function.
        schedule: its temperature over training.
        min_effective_share: least effective sample size as a share of the step's finite samples; None: no limit.
        damping: ridge of signal leverage (`presence_ds.reweighting.leverage`).
        near_duplicates: cosine from which two samples count as near-duplicates; None: not computed.
    """

    preset: Preset | None = None
    signal: Signal = "self_influence"
    normalizer: NormalizerKind = "zscore"
    weighting: WeightingConfig = field(default_factory=WeightingConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    min_effective_share: float | None = None
    damping: float = 1.0
    near_duplicates: float | None = None

    @property
    def chosen_preset(self) -> Preset:
        """The stated preset; without one clip, or paper where something is stated that clipping has no use for."""
        if self.preset is not None:
            return self.preset
        clips = self.signal in CLIPPED and self.normalizer == "zscore" and self.min_effective_share is None
        return "clip" if clips and not stated(self.schedule) else "paper"

    @property
    def weighting_kind(self) -> WeightingKind:
        """The weight function: the stated one, else the preset's."""
        return self.weighting.kind or PRESETS[self.chosen_preset]

    @property
    def has_temperature(self) -> bool:
        """Whether the weight function knows a τ."""
        return self.weighting_kind != "clip"

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used, or would have no effect."""
        if not SMALLEST_DAMPING <= self.damping < inf:
            raise ConfigError(
                f"{field}.damping is {self.damping}: it must be a finite number, {SMALLEST_DAMPING:g} or more"
            )
        if self.damping != type(self).damping and self.signal not in ("leverage", "uniform"):
            raise ConfigError(f"{field}.damping is {self.damping} with signal {self.signal}: it is for leverage alone")
        if self.near_duplicates is not None and not 0.0 < self.near_duplicates <= 1.0:
            raise ConfigError(f"{field}.near_duplicates is {self.near_duplicates}: it must be above 0 and at most 1")
        if self.min_effective_share is not None and not 0.0 < self.min_effective_share < 1.0:
            raise ConfigError(
                f"{field}.min_effective_share is {self.min_effective_share}: it must be between 0 and 1, both excluded"
            )
        self.weighting.validate(f"{field}.weighting")
        for name, kind in (("quantile", "clip"), ("threshold", "saturating")):
            if self.weighting_kind != kind and name in stated(self.weighting):
                raise ConfigError(
                    f"{field}.weighting.{name} is {getattr(self.weighting, name)} with {self._function}, which has "
                    f"no {name}: leave it out, or use {field}.weighting.kind {kind}"
                )
        if self.has_temperature:
            self.schedule.validate(f"{field}.schedule")
        else:
            self._validate_clip(field)
        if self.normalizer == "log_zscore" and self.signal == "alignment":
            raise ConfigError(
                f"{field}.normalizer is log_zscore with signal alignment, which can be negative: use zscore or rank"
            )

    def _validate_clip(self, field: str) -> None:
        """Clipping takes raw self-influence; what belongs to another weight function would have no effect."""
        instead = f"{field}.preset paper"
        if self.weighting.kind is not None:
            instead = f"{field}.weighting.kind softmax or saturating"
        if self.signal not in CLIPPED:
            raise ConfigError(
                f"{field}.signal is {self.signal} with {self._function}, and only self-influence can be clipped: use "
                f"{instead}, or signal self_influence"
            )
        if self.min_effective_share is not None:
            raise ConfigError(
                f"{field}.min_effective_share is {self.min_effective_share} with {self._function}, which has no "
                f"temperature to lower: use {instead}, or raise {field}.weighting.quantile"
            )
        unused = {f"schedule.{name}": value for name, value in stated(self.schedule).items()}
        if self.normalizer != "zscore":
            unused["normalizer"] = self.normalizer
        for name, value in unused.items():
            raise ConfigError(
                f"{field}.{name} is {value} with {self._function}, which has no normalizer and no temperature: use "
                f"{instead}, or leave it out"
            )

    @property
    def _function(self) -> str:
        """The weight function and where it comes from, for messages."""
        return (
            f"preset {self.chosen_preset}" if self.weighting.kind is None else f"weighting kind {self.weighting.kind}"
        )


def check_running(config: ReweightingConfig, field: str) -> None:
    """Raise `ConfigError` if ``config`` cannot be had where samples are weighed before all of their step are known."""
    if config.signal == "uniform":
        return
    if config.has_temperature and config.normalizer == "rank":
        found = "normalizer is rank"
    elif config.signal in ("leverage", "alignment"):
        found = f"signal is {config.signal}"
    elif config.min_effective_share is not None:
        found = f"min_effective_share is {config.min_effective_share}"
    else:
        return
    raise ConfigError(
        f"{field}.{found}, which needs every score of an optimizer step before the first sample is weighed, and "
        f"statistics are running: use strategy two_pass, or gradient_accumulation_steps 1 with statistics batch"
    )


def check_comparable(config: ReweightingConfig, samples: int, width: int, field: str) -> None:
    """Raise `ConfigError` where comparing the gradients of a step's samples takes more than a rank should give to it.

    Args:
        samples: of an optimizer step over all ranks.
        width: numbers in a joint projection, projection_dim².
    """
    side = min(samples, width)
    if config.signal == "leverage" and side > LARGEST_SIDE:
        raise ConfigError(
            f"{field}.projection_dim is {isqrt(width)} with signal leverage, which solves {side:,} equations on every "
            f"rank ({samples:,} samples in an optimizer step): it must be at most {isqrt(LARGEST_SIDE)}"
        )
    gathers = config.near_duplicates is not None or (config.signal == "leverage" and samples <= width)
    if gathers and samples * width > LARGEST_GATHER:
        what = "signal leverage" if config.near_duplicates is None else f"near_duplicates {config.near_duplicates}"
        raise ConfigError(
            f"{field}.projection_dim is {isqrt(width)} with {what}, which gathers {samples:,} samples of {width:,} "
            f"numbers each on every rank: it must be at most {isqrt(LARGEST_GATHER // samples)}"
        )
