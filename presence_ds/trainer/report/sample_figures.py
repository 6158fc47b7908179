"""What a report says of samples, and of the sources that they are from; plain values."""

from dataclasses import dataclass

Number = float | int | None


@dataclass(frozen=True)
class SourceFigures:
    """A source over the steps that there are records of; without records over the logged steps.

    Attributes:
        samples: that were seen (in `RunFigures.records_share` of the records).
        share_of_samples: and of the tokens, where rows have one length.
        weight_mass: share of the sum of weights.
        share_of_update: that its samples had, mean over the steps of which it is known.
        times_share: that, by the share of the samples in those steps.
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
    times_share: Number = None
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
    beyond. Rows are even about the axis and grow away from it, as that of log (1 + |a| / middle) do, since a few steps
    can have alignments many times those of all others.

    Attributes:
        norm_edges, alignment_edges: [x + 1], [y + 1] ascending; as many rows above the axis as below, one about it.
        alignment_middle: up to which rows are about even: the median |alignment|.
        counts: [y][x] samples.
        weight: [y][x] mean weight in use; None where there is no sample.
        optimal: [y][x] mean a / mean n of the cell, scaled so that the mean over all samples is 1, as that of weights
            in use: the weight that such samples would have, were alignments known beforehand; negative below the axis.
        norm_counts: [x] samples.
        norm_weight: [x] mean weight in use.
        norm_optimal, norm_error: [x] the best weight that depends on n alone, mean a / mean n, scaled likewise, and its
            standard error.
    """

    norm_edges: list[float]
    alignment_edges: list[float]
    alignment_middle: float
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
