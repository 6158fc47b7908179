"""Runs on every rank of a pool: the same optimizer steps, split over ranks and accumulation steps in every way."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

import presence_ds
from presence_ds.capture import attributes_as
from presence_ds.reweighting import calibrated
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


class Trained(NamedTuple):
    """What came of it.

    Attributes:
        weights: of every step in the order of the samples, [steps, SAMPLES].
        alignments: likewise; NaN where they are not computed.
        figures: ‖G‖², tr Σ and the noise scale of every step, [steps, 3]; NaN where there is none.
        parameters: at the end.
        direction: mean direction of the steps before, with the feature momentum.
    """

    weights: Tensor
    alignments: Tensor
    figures: Tensor
    parameters: list[Tensor]
    direction: Tensor | None


def samples_of(presence: dict[str, Any]) -> Tensor:
    """Token ids, [steps, SAMPLES, LENGTH]; for calibrated weights half of the samples have much in common.

    That takes steps in which weights are alike yet; not many more, as training with them magnifies rounding.
    """
    if presence.get("preset") != "calibrated":
        return tokens(STEPS, SAMPLES, LENGTH, seed=3)
    ids = tokens(STEPS + 4, SAMPLES, LENGTH, seed=3)
    ids[:, ::2] = torch.arange(LENGTH) + ids[:, ::2, :1] % 3
    return ids


def train_split(split: Split) -> Trained:
    """Train as ``split`` says; calibrated weights are followed at once, while rounding has not grown yet."""
    with attributes_as(calibrated, {"FIT_STEPS": 1, "TRIAL_STEPS": 2}):
        return _train(split)


def _train(split: Split) -> Trained:
    ranks, rank = dist.get_world_size(), dist.get_rank()
    micro_batch = SAMPLES // (ranks * split.accumulation_steps)
    model = tiny_model("llama", tied=True)
    presence = {"strategy": split.strategy, "projection_dim": 4} | split.presence
    config = deepspeed_config(split.stage, split.accumulation_steps, train_micro_batch_size_per_gpu=micro_batch)
    optimizer = optimizer_for("sgd", model.parameters())
    engine, *_ = presence_ds.initialize(model=model, config=config, optimizer=optimizer, presence=presence)
    weights, alignments, figures = [], [], []
    for step in samples_of(split.presence):
        for ids in step.chunk(ranks)[rank].split(micro_batch):
            engine.backward(engine(input_ids=ids, labels=ids))
            engine.step()
        weights.append(everywhere(engine.presence.weights))
        found = engine.presence.alignments
        alignments.append(everywhere(torch.full_like(engine.presence.weights, torch.nan) if found is None else found))
        statistics = engine.presence.statistics
        names = ("gradient_sq_norm", "gradient_noise", "noise_scale")
        figures.append(torch.tensor([statistics.get(name, torch.nan) for name in names]))
    parameters, state = full_parameters(engine), engine.presence.state_dict()
    engine.destroy()
    direction = state["momentum"]["direction"] if "momentum" in state else None
    return Trained(torch.stack(weights), torch.stack(alignments), torch.stack(figures), parameters, direction)


def directions_after_a_load() -> list[bool]:
    """Whether the direction is that of the checkpoint: with the same settings, another seed, fewer layers."""
    presence = {"preset": "calibrated", "weighting": {"features": ["momentum"]}}
    changes: list[dict[str, Any]] = [{}, {}, {"seed": 1}, {"layers": "first"}]
    first, *others = (
        presence_ds.initialize(
            model=tiny_model("llama", tied=True),
            config=deepspeed_config(0, 1, train_micro_batch_size_per_gpu=SAMPLES),
            optimizer=lambda parameters: optimizer_for("sgd", parameters),
            presence=presence | change,
        )[0]
        for change in changes
    )
    ids = samples_of({})[0]
    for engine in (first, *others):
        engine.backward(engine(input_ids=ids, labels=ids))
        engine.step()
    state = first.presence.state_dict()
    found = []
    for engine in others:
        engine.presence.load_state_dict(state)
        now = engine.presence.state_dict()["momentum"]["direction"]
        found.append(now is not None and torch.equal(now, state["momentum"]["direction"]))
        engine.destroy()
    first.destroy()
    return found


def everywhere(local: Tensor) -> Tensor:
    """``local`` of every rank, one after the other."""
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local)
    return torch.cat(parts)
