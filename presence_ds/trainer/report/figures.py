"""All that a report says, as plain values: `dataclasses.asdict` of a `Report` is JSON without NaN or infinity.

A figure that is not known is None; of what is missing, and why, `RunFigures.missing` has a sentence. Weights are w·N, so
that 1 is a uniform weight. Names, ids and texts are as they were found: whoever shows them escapes them.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Number = float | int | None
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
    """A figure over the run in at most some 400 bins of steps; lists of one length.

    Attributes:
        step: last step of every bin, ascending.
        tokens: at that step.
        hours: of training until then, without evaluation and checkpoints.
        mean: of the bin's lines; None where none of them has the figure, or it was not finite.
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
class SourceFigures:
    """A source over the steps that there are records of; without records over the logged steps.

    Attributes:
        samples: that were seen (in `RunFigures.records_share` of the records).
        share_of_samples: and of the tokens, where rows have one length.
        weight_mass: share of the sum of weights.
        share_of_update: sum over steps of the share of the update that its samples had.
        mean_si: mean self-influence.
        mean_weight: of its samples; 1 is uniform.
        worth, error: alignment for its noise, relative to all samples, and its standard error.
        verdict: "keep", "doubtful" or "drop"; None where alignments are not recorded.
        mean_loss: over its samples.
    """

    name: str
    samples: int
    share_of_samples: float
    weight_mass: Number = None
    share_of_update: Number = None
    mean_si: Number = None
    mean_weight: Number = None
    mean_loss: Number = None
    worth: Number = None
    error: Number = None
    verdict: str | None = None


@dataclass(frozen=True)
class Quantiles:
    """Quantiles 5, 25, 50, 75 and 95 % of a figure of samples, in at most some 100 bins of steps: [bins] each.

    Attributes:
        step: last step of every bin.
    """

    step: list[int]
    q05: list[Number]
    q25: list[Number]
    q50: list[Number]
    q75: list[Number]
    q95: list[Number]


@dataclass(frozen=True)
class Plane:
    """Samples by squared gradient norm n and alignment a, both in units that take the steps' scale away.

    Across: log₁₀ (n / mean n of the step). Up: a / √(n · mean n of the step), the part of the others' mean gradient
    that lies along the sample's, so that samples of one height ask for weights ∝ 1/√n. The outer bins hold what lies
    beyond.

    Attributes:
        norm_edges, alignment_edges: [x + 1], [y + 1] ascending.
        counts: [y][x] samples.
        weight: [y][x] mean weight in use; None where there is no sample.
        optimal: [y][x] mean a / mean n of the cell by that of all samples: the weight that such samples would have if
            alignments were known beforehand; negative below the axis.
        norm_counts: [x] samples.
        norm_weight: [x] mean weight in use.
        norm_optimal, norm_error: [x] the best weight that depends on n alone, mean a / mean n by that of all samples,
            and its standard error.
    """

    norm_edges: list[float]
    alignment_edges: list[float]
    counts: list[list[int]]
    weight: list[list[Number]]
    optimal: list[list[Number]]
    norm_counts: list[int]
    norm_weight: list[Number]
    norm_optimal: list[Number]
    norm_error: list[Number]


@dataclass(frozen=True)
class MovedSample:
    """A sample that had a large part in a step's update.

    Attributes:
        share: of the update, 1 for all samples of the step; negative where it was pulled back.
        weight: 1 is uniform.
        norm, alignment: relative to the step's mean of n.
        text: at most 500 characters from the sample's beginning; None where the corpus cannot tell.
    """

    source: str
    document_id: str
    offset: int
    share: float
    weight: Number
    norm: Number
    alignment: Number
    loss: Number
    text: str | None = None


@dataclass(frozen=True)
class MovedStep:
    """A step, and what moved it.

    Attributes:
        loss: mean of the step's samples.
        why: that it was chosen: "spike", "high loss" or "spread".
        words: that in words.
        samples: at most 8, by |share|, the largest first.
        count: samples of the step that count.
        by: what shares are made of: "alignment" (the exact part of ‖Σ w g‖²), or "norm" (w √n) where alignments are not
            recorded.
    """

    step: int
    loss: Number
    why: str
    words: str
    count: int
    by: str
    samples: list[MovedSample]


@dataclass(frozen=True)
class Extreme:
    """A sample among the top percent of self-influences every time that it was seen.

    Attributes:
        times: how often it was seen, at least 2; once in an epoch.
        norms: mean and least of n, relative to the mean of their steps.
        mean_weight: 1 is uniform.
        steps: it was seen in, at most 8.
    """

    source: str
    document_id: str
    offset: int
    times: int
    mean_norm: float
    least_norm: float
    mean_weight: Number
    mean_loss: Number
    steps: list[int]
    text: str | None = None


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
        hours: of training, without what lies outside.
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
        curves: by the name in metrics.jsonl: "loss", "gradient_norm", "learning_rate", "effective_share" (effective
            sample size by samples), "tau", "noise_scale", "gain/in_use", "throughput(tokens/s)", "memory/peak(GiB)", ...
        validation: the same of the validation split: "" for all of it, else by source.
        validation_loss: the last one.
        last: the last line of the metrics, numbers and texts.
        records_share: of the score records that were read, 0 to 1.
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
        curves, validation: as of `RunFigures`, the mean over the runs with the range of them; only steps that all of
            them have.
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
        seeds: that both have.
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
