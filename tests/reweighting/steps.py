"""Short ways to build a `Reweighting` and to put samples through it."""

from typing import Any

import torch
from torch import Tensor

from presence_ds.reweighting import (
    MicroBatch,
    Reweighting,
    ReweightingConfig,
    ScheduleConfig,
    StepWeights,
    WeightingConfig,
)

EVERY_KIND: list[dict[str, Any]] = [
    {},
    {"normalizer": "log_zscore"},
    {"normalizer": "rank"},
    {"signal": "loss"},
    {"signal": "leverage"},
    {"signal": "alignment"},
    {"signal": "uniform"},
    {"weighting": {"kind": "saturating"}, "tau": -2.0},
    {"weighting": {"kind": "clip"}},
    {"min_effective_share": 0.9},
    {"near_duplicates": 0.9},
]
RUNNING_KINDS = [EVERY_KIND[index] for index in (0, 1, 3, 6, 7, 8)]


def random_batch(fields: dict[str, Any], count: int, seed: int) -> MicroBatch:
    """What the engine collects for ``fields``: scores, losses and features that spread over orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 6, generator=generator) * torch.randn(count, 1, generator=generator).exp()
    signal = fields.get("signal")
    return MicroBatch(
        losses=torch.rand(count, generator=generator) + 3,
        targets=torch.ones(count, dtype=torch.int64),
        sources=torch.randint(0, 3, (count,), generator=generator),
        scores=None if signal == "loss" else features.square().sum(1),
        reference_alignment=features[:, 0] if signal == "alignment" else None,
        features=features if signal == "leverage" or "near_duplicates" in fields else None,
    )


def take(batch: MicroBatch, chosen: slice | Tensor) -> MicroBatch:
    return MicroBatch(**{name: value if value is None else value[chosen] for name, value in vars(batch).items()})


def reweighting(
    tau: float = 1.0, *, running: bool = False, bounded: bool = False, unequal: bool = False, **fields: Any
) -> Reweighting:
    """The paper's weights at a constant temperature, unless ``fields`` of the configuration say otherwise."""
    weighting = WeightingConfig(**fields.pop("weighting", {}))
    schedule = ScheduleConfig(**({"kind": "constant", "tau_direct": tau} | fields.pop("schedule", {})))
    if weighting.kind == "clip":  # which has no temperature
        schedule = ScheduleConfig()
    config = ReweightingConfig(preset="paper", weighting=weighting, schedule=schedule, **fields)
    config.validate("presence")
    return Reweighting(config, running=running, group=None, bounded=bounded, unequal=unequal)


def micro_batch(scores: Any, **columns: Any) -> MicroBatch:
    """Scores alone; losses are 1 and all samples of source 0 unless given."""
    values = torch.as_tensor(scores, dtype=torch.float32)
    alike = {
        "losses": torch.ones_like(values),
        "targets": torch.ones(len(values), dtype=torch.int64),
        "sources": torch.zeros(len(values), dtype=torch.int64),
    }
    return MicroBatch(**(alike | {"scores": values} | columns))


def finished(target: Reweighting, scores: Any, step: int = 1, **columns: Any) -> StepWeights:
    """One optimizer step of one micro-batch."""
    target.collect(micro_batch(scores, **columns))
    return target.finish(step)


def accumulated(target: Reweighting, micro_batches: list[MicroBatch], step: int = 1) -> tuple[Tensor, StepWeights]:
    """One optimizer step as the engine goes through it; the terms that it weighs by, and the result."""
    terms = []
    for batch in micro_batches[:-1]:
        target.collect(batch)
        terms.append(target.provisional(step))
    target.collect(micro_batches[-1])
    result = target.finish(step)
    return torch.cat([*terms, result.terms[-len(micro_batches[-1].losses) :]]), result


def finished_batch(fields: dict[str, Any], batch: MicroBatch) -> StepWeights:
    target = reweighting(**fields)
    target.collect(batch)
    return target.finish(1)
