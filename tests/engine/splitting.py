"""Runs on every rank of a pool: the same optimizer steps, split over ranks and accumulation steps in every way."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import presence_ds
from tests.engine.training import deepspeed_config, full_parameters, optimizer_for
from tests.models import tiny_model, tokens

SAMPLES, LENGTH, STEPS = 8, 13, 3


@dataclass(frozen=True)
class Split:
    """How the `SAMPLES` samples of a step are processed; the number of ranks is the pool's."""

    accumulation_steps: int = 1
    strategy: str = "two_pass"
    stage: int = 2
    presence: dict[str, Any] = field(default_factory=dict)


def train_split(split: Split) -> tuple[Tensor, list[Tensor]]:
    """Weights of every step in the order of the samples, [STEPS, SAMPLES], and the parameters at the end."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    micro_batch = SAMPLES // (ranks * split.accumulation_steps)
    model = tiny_model("llama", tied=True)
    presence = {"strategy": split.strategy, "projection_dim": 4} | split.presence
    config = deepspeed_config(split.stage, split.accumulation_steps, train_micro_batch_size_per_gpu=micro_batch)
    optimizer = optimizer_for("sgd", model.parameters())
    engine, *_ = presence_ds.initialize(model=model, config=config, optimizer=optimizer, presence=presence)
    weights = []
    for step in tokens(STEPS, SAMPLES, LENGTH, seed=3):
        for ids in step.chunk(ranks)[rank].split(micro_batch):
            engine.backward(engine(input_ids=ids, labels=ids))
            engine.step()
        everywhere = [torch.empty_like(engine.presence.weights) for _ in range(ranks)]
        dist.all_gather(everywhere, engine.presence.weights)
        weights.append(torch.cat(everywhere))
    parameters = full_parameters(engine)
    engine.destroy()
    return torch.stack(weights), parameters
