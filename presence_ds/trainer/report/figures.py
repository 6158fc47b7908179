"""All that a report says, as plain values: `dataclasses.asdict` of a `Report` is JSON without NaN or infinity.

A figure that is not known is None; of what is missing, and why, `RunFigures.missing` has a sentence. Weights are w·N,
so that 1 is a uniform weight. Names, ids and texts are as they were found: whoever shows them escapes them.
`presence_ds.trainer.report.report.make_report` makes one.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from presence_ds.trainer.report.sample_figures import Extreme, MovedStep, Number, Plane, Quantiles, SourceFigures

Level = Literal["told", "good", "look", "bad"]


@dataclass(frozen=True)
class Sentence:
    """A sentence of the summary.

    Attributes:
        level: told is neutral; look and bad are what to look at.
        about: the part of the report that has more on it: "loss", "validation", "worth", "sources", "distributions",
            "plane", "moved", "extremes", "stability", "cost", "configuration", or "" for none.
        run: place in `Report.runs` of the run it is about, None for all of them.
    """

    text: str
    level: Level = "told"
    about: str = ""
    run: int | None = None


@dataclass(frozen=True)
class Curve:
    """A figure over the run in at most some 400 bins of steps, those without it left out; lists of one length.

    Attributes:
        step: last step of every bin that has the figure, ascending.
        tokens: at that step.
        hours: until then, over all starts of the run; of runs of older versions the time of steps alone.
        mean: of the bin's lines; of validation figures the last one.
        low, high: the least and most of the bin's lines; of a group's curve, of its runs' means.
    """

    step: list[int] = field(default_factory=list)
    tokens: list[Number] = field(default_factory=list)
    hours: list[Number] = field(default_factory=list)
    mean: list[Number] = field(default_factory=list)
    low: list[Number] = field(default_factory=list)
    high: list[Number] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """Something that happened in a step, or somewhere between two logged ones.

    Attributes:
        step: of the logged line that tells of it.
        kind: loss_spikes, gradient_spikes, skipped_steps, nonfinite_steps, stage, switch, resume.
        words: for a person.
    """

    step: int
    kind: str
    words: str


@dataclass(frozen=True)
class WeightsWorth:
    """What weights were, or would have been, worth.

    Attributes:
        name: of the weights; "in_use" and "uniform" among them.
        words: for a person.
        gain, error: in batch size, 1 for uniform weights, and its standard error.
        speedup: how many times fewer steps, by the noise scale.
    """

    name: str
    words: str
    gain: Number
    error: Number
    speedup: Number


@dataclass(frozen=True)
class Worth:
    """Over the steps ``first_step`` to ``last_step``.

    Attributes:
        told_by: "records" (presence gain) or "metrics" (the last line's figures, of the last 200 steps or so).
        noise_scale: in samples.
        weights: those in use first, then by gain.
    """

    first_step: int
    last_step: int
    told_by: str
    noise_scale: Number
    weights: list[WeightsWorth]


@dataclass(frozen=True)
class Cost:
    """Means over the run, or what is said.

    Attributes:
        scoring_share: of a step's time that scoring takes; None where the run does not tell.
        outside_share: of the time that lies outside of steps: evaluation, checkpoints, logging.
        peak_memory_gib: the most of rank 0.
        hours: as of `Curve`.
    """

    tokens_per_second: Number = None
    step_seconds: Number = None
    hours: Number = None
    data_wait_share: Number = None
    mfu: Number = None
    scoring_share: Number = None
    outside_share: Number = None
    peak_memory_gib: Number = None


@dataclass(frozen=True)
class RunFigures:
    """A run.

    Attributes:
        run_dir: its path as a text.
        label: short, and unlike that of any other run of the report.
        group: of runs that differ in nothing but seeds and paths; place in `Report.groups`.
        seed: training.seed; None where the recipe does not tell.
        weights: how samples are weighted, in a few words.
        state, told: as of `presence status`.
        missing: what cannot be shown, and why: sentences.
        notes: what was done to the figures: sentences (of sampled records, for instance).
        curves: by the name in metrics.jsonl: "loss", "gradient_norm", "learning_rate", "tau", "noise_scale",
            "gain/in_use", "throughput(tokens/s)", "memory/peak(GiB)", ...; "effective_share" is the effective sample
            size by samples.
        validation: the same of the validation split: "" for all of it, else by source.
        validation_loss: the last one.
        last: the last line of the metrics, numbers and texts.
        records_share: of the score records that were read, 0 to 1.
        effective_share: mean over steps of the effective sample size by samples; 1 for uniform weights.
        self_influence: of log₁₀ n.
        weight: of weights.
    """

    run_dir: str
    label: str
    group: int = 0
    seed: int | None = None
    weights: str = ""
    state: str = ""
    told: str = ""
    step: int = 0
    total_steps: int | None = None
    tokens: Number = None
    hours: Number = None
    samples_per_step: Number = None
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    validation: dict[str, Curve] = field(default_factory=dict)
    validation_loss: Number = None
    last: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # of skipped_steps, nonfinite_steps, loss_spikes, ...
    sources: list[SourceFigures] = field(default_factory=list)
    records: int = 0
    records_share: float = 0.0
    effective_share: Number = None
    self_influence: Quantiles | None = None
    weight: Quantiles | None = None
    plane: Plane | None = None
    moved: list[MovedStep] = field(default_factory=list)
    extremes: list[Extreme] = field(default_factory=list)
    worth: Worth | None = None
    cost: Cost = field(default_factory=Cost)
    configuration: dict[str, Any] = field(default_factory=dict)  # flat: "optimizer.lr" → 0.001


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but seeds and paths.

    Attributes:
        name: short, by what sets it apart from the other groups.
        runs: places in `Report.runs`.
        curves, validation: as of `RunFigures`, the mean over the runs that have the figure, with the range of them;
            only steps that all of these have.
    """

    name: str
    runs: list[int]
    weights: str = ""
    curves: dict[str, Curve] = field(default_factory=dict)
    validation: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Final validation losses of two groups, seed by seed.

    Attributes:
        group, baseline: places in `Report.groups`.
        figure: "validation/loss", or that of a source: "validation/NAME/loss".
        seeds: that both have; of runs of one seed the mean counts.
        differences: group less baseline, of every one of these, in nats; below 0 the group is better.
        difference: their mean.
        low, high: of the 95 % interval by Student's t; None with one seed.
        tolerance: within which losses are called equivalent.
        verdict: "better", "worse", "equivalent", "open" (the interval holds 0 and more than the tolerance), or "one
            seed".
        words: the sentence.
    """

    group: int
    baseline: int
    figure: str
    seeds: list[int]
    differences: list[float]
    difference: float
    low: Number
    high: Number
    tolerance: float
    verdict: str
    words: str


@dataclass(frozen=True)
class Difference:
    """A field in which the configurations are not alike.

    Attributes:
        field: as "optimizer.lr".
        values: of every run; None where the run has no such field.
        is_seed: of those by which runs of a group differ.
    """

    field: str
    values: list[Any]
    is_seed: bool = False


@dataclass(frozen=True)
class Report:
    """Everything.

    Attributes:
        made: when, ISO 8601 with the time zone.
        version: of this package.
        summary: the plain-language part, in the order in which it is read.
        missing: of the report as a whole; of runs see theirs.
    """

    made: str
    version: str
    summary: list[Sentence] = field(default_factory=list)
    runs: list[RunFigures] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    configuration_differences: list[Difference] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
