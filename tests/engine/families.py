"""Runs on every rank of a pool: one step of models of many families, beside the sum of their per-sample gradients."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import presence_ds
from tests.engine.training import deepspeed_config
from tests.families.models import FAMILIES
from tests.families.samples import Batch, make_batch, one_at_a_time

LEARNING_RATE, MICRO_BATCH = 0.01, 2


@dataclass(frozen=True)
class Step:
    """One optimizer step of ``family``; with ``lora``, of adapters on it."""

    family: str
    strategy: str
    stage: int
    accumulation_steps: int = 1
    lora: bool = False
    checkpointing: bool = False


@dataclass
class Difference:
    """Between the engine and the per-sample gradients.

    Attributes:
        weights: largest absolute difference of a weight.
        update: largest difference of a parameter, as a share of the largest update.
        left_out: names of the trained parameters that are not scored.
    """

    weights: float
    update: float
    left_out: list[str]


def compare(step: Step) -> Difference:
    """Take the step and compute Σ_i w_i g_i one sample at a time, in float32."""
    family, ranks, rank = FAMILIES[step.family], dist.get_world_size(), dist.get_rank()
    batch = make_batch(
        ranks * step.accumulation_steps * MICRO_BATCH,
        6,
        target_length=4 if family.encoder_decoder else None,
        ignored=0.2,
        padding_side="right",
    )
    model, reference = _build(step), _build(step)
    if step.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    engine, *_ = presence_ds.initialize(
        model=model,
        config=deepspeed_config(step.stage, step.accumulation_steps, train_micro_batch_size_per_gpu=MICRO_BATCH),
        presence={
            "preset": "paper",
            "estimator": "exact",
            "strategy": step.strategy,
            "schedule": {"kind": "constant"},
        },
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE),
    )
    for micro_batch in _chunks(_chunks(batch, ranks)[rank], step.accumulation_steps):
        engine.backward(engine(**micro_batch, use_cache=False))
        engine.step()
    weights = [torch.empty_like(engine.presence.weights) for _ in range(ranks)]
    dist.all_gather(weights, engine.presence.weights)

    trained = {name: p for name, p in reference.named_parameters() if p.requires_grad}
    left_out = [name for name in trained if name not in engine.presence.scored]
    gradients = one_at_a_time(reference, batch, list(trained.values()))
    scored = [index for index, name in enumerate(trained) if name not in left_out]
    scores = torch.stack([sum(sample[index].double().square().sum() for index in scored) for sample in gradients])
    expected = torch.softmax((scores - scores.mean()) / scores.std(correction=0), 0)
    difference = Difference((torch.cat(weights) - expected).abs().max().item(), 0.0, left_out)
    ours = {name: p for name, p in engine.module.named_parameters() if p.requires_grad}
    updates, largest = [], 0.0
    for index, (name, before) in enumerate(trained.items()):
        update = LEARNING_RATE * sum(w.float() * sample[index] for w, sample in zip(expected, gradients, strict=True))
        updates.append((_full(ours[name], step.stage) - (before.detach() - update)).abs().max().item())
        largest = max(largest, update.abs().max().item())
    difference.update = max(updates) / largest
    engine.destroy()
    return difference


def _build(step: Step) -> Any:
    model = FAMILIES[step.family].build(tied=False, dtype=torch.float32)
    if not step.lora:
        return model
    adapted = get_peft_model(model, LoraConfig(r=3, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
        elif "lora_A" in name:
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    return adapted


def _chunks(batch: Batch, count: int) -> list[Batch]:
    parts = {name: value.chunk(count) for name, value in batch.items()}
    return [{name: values[index] for name, values in parts.items()} for index in range(count)]


def _full(parameter: Tensor, stage: int) -> Tensor:
    return parameter.detach() if stage == 0 else safe_get_full_fp32_param(parameter).cpu()
