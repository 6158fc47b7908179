"""What turns scores into weights, and which combinations cannot be had."""

from dataclasses import dataclass, field
from math import isqrt
from typing import Literal

from presence_ds.errors import ConfigError
from presence_ds.reweighting.schedule import ScheduleConfig
from presence_ds.sections import check_ranges, limited, stated

Signal = Literal["self_influence", "leverage", "alignment", "loss", "uniform"]
NormalizerKind = Literal["zscore", "log_zscore", "rank"]
AlignedWith = Literal["step", "reference"]
WeightingKind = Literal["softmax", "saturating", "clip", "normalized", "calibrated", "uniform"]
Feature = Literal["norm", "loss", "vocabulary", "momentum", "length", "source"]
Preset = Literal["clip", "paper", "calibrated", "uniform"]

PRESETS: dict[Preset, WeightingKind] = {  # what a kind that is not stated means
    "clip": "clip",
    "paper": "softmax",
    "calibrated": "calibrated",
    "uniform": "uniform",
}
TEMPERED: tuple[WeightingKind, ...] = ("softmax", "saturating")  # kinds with a normalizer and a temperature
GRADIENTS: tuple[Signal, ...] = ("self_influence", "uniform")  # signals that go with kinds that look at the gradient
USERS: dict[str, tuple[WeightingKind, ...]] = {  # of fields of weighting
    "quantile": ("clip",),
    "threshold": ("saturating",),
    "features": ("calibrated",),
}

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
            clipping per sample would; normalized is u = 1 / sqrt(SI), up to 10 times that of the median sample, every
            gradient at the same length; calibrated weighs samples by what those like them were worth in the steps
            before, measured by how their gradients align with the others'; uniform weighs all alike. The last four are
            for signal self_influence, without normalizer, temperature and schedule. null: what the preset says.
        threshold: Saturating only: distance from the mean, in standard deviations, at which the tail begins.
        quantile: Clip only: c is this quantile of the step's self-influences, between 0 and 1.
        features: Calibrated, or compared as such where alignment is true: what makes samples alike. norm, the logarithm
            of the self-influence; loss; vocabulary, the share of the self-influence that is in embeddings and output
            head; momentum, how far the sample's gradient points where the mean gradients of the steps before did;
            length, the number of targets (in a corpus with padding); source.
        placebo: Whether to permute the weights among the samples of the step, so that their spread stays and what they
            know of the samples is gone: the control that a weighting has to beat.
    """

    kind: WeightingKind | None = None
    threshold: float = limited(0.8, least=0)
    quantile: float = limited(0.5, above=0, most=1)
    features: list[Feature] = field(default_factory=lambda: ["norm", "loss", "vocabulary"])
    placebo: bool = False


@dataclass
class ReweightingConfig:
    """What turns scores into weights.

    Args:
        preset: What samples are weighed by where the fields below do not say it: clip is weighting.kind clip at the
            median of the step's self-influences; paper is the published setting, weighting.kind softmax of the zscore
            with the two-stage schedule; calibrated and uniform are the weighting.kind of that name. Fields that are
            stated override it. null: calibrated; clip where alignment is false, quantile is stated, granularity is
            microbatch or global_microbatch, or estimator is exact; paper where a schedule, a normalizer,
            min_effective_share or a signal is stated that neither has a use for.
        signal: What a sample is weighted by: self_influence; leverage, self-influence under the curvature of the step's
            own gradients; alignment with the gradient of a trusted stream (engine.observe_reference); loss, which costs
            nothing; or uniform, which scores by self-influence but weighs every sample alike (the baseline).
        normalizer: How scores are made comparable before the weight function: zscore is the paper's (equation 7);
            log_zscore takes logarithms first; rank keeps nothing but their order.
        weighting: The weight function.
        schedule: The temperature of the weight function over training.
        min_effective_share: Least effective sample size 1/sum(w^2) as a share of the samples, between 0 and 1; |tau| is
            lowered to keep it. null: no limit.
        damping: Ridge of signal leverage, in units of the mean eigenvalue of the step's gradient covariance.
        near_duplicates: Cosine of two samples' gradients from which they count as near-duplicates, between 0 and 1; the
            share of such samples in a step is logged. null: not computed.
        alignment: Whether to compute every sample's alignment with the rest of its step, and from it the gradient noise
            scale, what each source is worth and what other weights would be. null: where something needs it.
        alignment_with: What samples are taken to be good for where that is asked: step, the mean gradient of the step's
            other samples, which is progress on the data as it is; reference, the gradient of a trusted stream
            (engine.observe_reference), which is progress on what that stands for.
    """

    preset: Preset | None = None
    signal: Signal = "self_influence"
    normalizer: NormalizerKind = "zscore"
    weighting: WeightingConfig = field(default_factory=WeightingConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    min_effective_share: float | None = limited(None, above=0, below=1)
    damping: float = limited(1.0, least=SMALLEST_DAMPING)
    near_duplicates: float | None = limited(None, above=0, most=1)
    alignment: bool | None = None
    alignment_with: AlignedWith = "step"

    @property
    def aligns(self) -> bool:
        """Whether every sample's alignment with the rest of its step is computed."""
        return bool(self.alignment) or self.calibrates

    @property
    def uses_reference(self) -> bool:
        """Whether samples are compared with the gradient of a trusted stream."""
        return self.signal == "alignment" or self.alignment_with == "reference"

    @property
    def computes_gradients(self) -> bool:
        """Whether samples are scored by their gradients, and not by their losses alone."""
        return self.signal != "loss" or self.aligns

    @property
    def chosen_preset(self) -> Preset:
        """The stated preset; without one what goes with the other fields: calibrated, else clip, else paper."""
        if self.preset is not None:
            return self.preset
        no_temperature = self.signal in GRADIENTS and self.normalizer == "zscore" and self.min_effective_share is None
        if not no_temperature or stated(self.schedule):
            return "paper"
        return "calibrated" if self.can_calibrate and self.weighting.quantile == WeightingConfig.quantile else "clip"

    @property
    def can_calibrate(self) -> bool:
        """Whether nothing that is stated rules alignments out."""
        return self.alignment is not False

    @property
    def weighting_kind(self) -> WeightingKind:
        """The weight function: the stated one, else the preset's."""
        return self.weighting.kind or PRESETS[self.chosen_preset]

    @property
    def features(self) -> list[Feature]:
        """What samples are calibrated on, or would be, were they weighed so; nothing where they are not aligned."""
        return self.weighting.features if self.aligns else []

    @property
    def has_temperature(self) -> bool:
        """Whether the weight function knows a τ."""
        return self.weighting_kind in TEMPERED

    @property
    def calibrates(self) -> bool:
        """Whether samples are weighed by what those like them were worth."""
        return self.weighting_kind == "calibrated" and self.signal != "uniform"

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used, or would have no effect."""
        check_ranges(self, field)
        if self.damping != type(self).damping and self.signal not in ("leverage", "uniform"):
            raise ConfigError(f"{field}.damping is {self.damping} with signal {self.signal}: it is for leverage alone")
        for name, kinds in USERS.items():
            used = self.weighting_kind in kinds or (name == "features" and self.aligns)
            if not used and name in stated(self.weighting):
                raise ConfigError(
                    f"{field}.weighting.{name} is {getattr(self.weighting, name)} with {self._function}, which has "
                    f"no {name}: leave it out, or use {field}.weighting.kind {' or '.join(kinds)}"
                )
        if self.weighting.placebo and "uniform" in (self.weighting_kind, self.signal):
            raise ConfigError(f"{field}.weighting.placebo is true with weights that are all alike: leave it out")
        if self.aligns and (not self.features or len(set(self.features)) < len(self.features)):
            raise ConfigError(f"{field}.weighting.features is {self.features}: name one or more, each of them once")
        if self.calibrates and self.alignment is False:
            raise ConfigError(
                f"{field}.alignment is false with {self._function}, which learns from alignments: leave it out"
            )
        if self.has_temperature:
            self.schedule.validate(f"{field}.schedule")
        else:
            self._validate_untempered(field)
        if self.normalizer == "log_zscore" and self.signal == "alignment":
            raise ConfigError(
                f"{field}.normalizer is log_zscore with signal alignment, which can be negative: use zscore or rank"
            )

    def _validate_untempered(self, field: str) -> None:
        """Such kinds take raw self-influence; what belongs to another weight function would have no effect."""
        instead = f"{field}.preset paper"
        if self.weighting.kind is not None:
            instead = f"{field}.weighting.kind softmax or saturating"
        if self.signal not in GRADIENTS and self.weighting_kind != "uniform":
            raise ConfigError(
                f"{field}.signal is {self.signal} with {self._function}, which is for self-influence: use {instead}, "
                f"or signal self_influence"
            )
        if self.min_effective_share is not None and not self.calibrates:
            raise ConfigError(
                f"{field}.min_effective_share is {self.min_effective_share} with {self._function}, which has no "
                f"temperature to lower: use {instead}, or leave it out"
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


def check_comparable(config: ReweightingConfig, samples: int, width: int, field: str, unit: str = "samples") -> None:
    """Raise `ConfigError` where comparing the gradients of a step's samples takes more than a rank should give to it.

    Args:
        samples: of an optimizer step over all ranks.
        width: numbers in a joint projection, projection_dim².
        unit: what the message calls the samples.
    """
    if config.signal == "leverage" and width > LARGEST_SIDE:
        raise ConfigError(
            f"{field}.projection_dim is {isqrt(width)} with signal leverage, which solves {width:,} equations on every "
            f"rank: it must be at most {isqrt(LARGEST_SIDE)}"
        )
    if config.near_duplicates is not None and samples * width > LARGEST_GATHER:
        raise ConfigError(
            f"{field}.projection_dim is {isqrt(width)} with near_duplicates {config.near_duplicates}, which gathers "
            f"{samples:,} {unit} of {width:,} numbers each on every rank: it must be at most "
            f"{isqrt(LARGEST_GATHER // samples)}"
        )
