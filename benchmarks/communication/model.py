"""The collectives of one optimizer step, by formula: what DeepSpeed sends at every ZeRO stage, what PRESENCE adds."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.communication.traffic import Kind, Traffic

FLOAT = 4  # bytes of a number in the rows that ranks exchange


@dataclass(frozen=True)
class ScaleSetting:
    """A data-parallel training.

    Attributes:
        parameters: P.
        ranks: N.
        stage: of ZeRO.
        strategy: None is plain DeepSpeed.
        micro_batch_size: b, samples of a rank and micro-step.
        accumulation_steps: G.
        bytes_per_number: of parameters and gradients, on the wire too.
        columns: numbers that a sample has in the exchange: loss, targets, source, and unless the signal is the loss a
            score; one more each with features vocabulary and momentum; the projections of signal leverage and alignment
            come on top.
        sketch: m, numbers of a sample's sketch for alignments, which are one more column; 0 without.
        keeps_gathered: at stage 3, whether what the forward gathers is kept for the backward: the model is smaller than
            ``stage3_max_live_parameters`` and ``stage3_max_reuse_distance``.
    """

    parameters: int
    ranks: int
    stage: Literal[0, 1, 2, 3]
    strategy: Literal["one_pass", "two_pass"] | None = "one_pass"
    micro_batch_size: int = 4
    accumulation_steps: int = 1
    bytes_per_number: int = 2
    columns: int = 4
    sketch: int = 0
    keeps_gathered: bool = False


def step_traffic(setting: ScaleSetting) -> dict[Kind, Traffic]:
    """What one rank takes part in, in an optimizer step; calls are the least possible, payloads without padding.

    A reduction of gradients at stages 1 and 2 is an all-reduce: DeepSpeed all-reduces its buckets and lets every rank
    keep its part (``use_multi_rank_bucket_allreduce``).
    """
    whole = setting.parameters * setting.bytes_per_number
    steps = setting.accumulation_steps
    found: dict[Kind, Traffic] = {}
    if setting.stage == 3:
        per_pass = 1 if setting.keeps_gathered else 2  # forward, backward; weight gradients of one_pass need no values
        passes = per_pass * (2 if setting.strategy == "two_pass" else 1)
        found["all-gather"] = Traffic(passes * steps, passes * steps * whole)
        found["reduce-scatter"] = Traffic(steps, steps * whole)
    else:
        number = steps if setting.stage == 2 else 1
        found["all-reduce"] = Traffic(number, number * whole)
        if setting.stage > 0:
            found["all-gather"] = Traffic(1, whole)
    if setting.strategy is not None:
        gathers = found.setdefault("all-gather", Traffic())
        gathers.calls += 1
        gathers.payload += exchange_bytes(setting)
        if setting.sketch:  # the sum of the sketches, and how many there are
            reductions = found.setdefault("all-reduce", Traffic())
            reductions.calls += 1
            reductions.payload += (setting.sketch + 1) * FLOAT
    return found


def exchange_bytes(setting: ScaleSetting) -> int:
    """Bytes of the rows of all samples of an optimizer step, which every rank receives in one all-gather."""
    samples = setting.ranks * setting.accumulation_steps * setting.micro_batch_size
    return samples * (setting.columns + bool(setting.sketch)) * FLOAT
