"""Runs on every rank of a pool: the same training in narrow and in wide numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from tests.engine.behaviour import start
from tests.engine.training import data, full_parameters, plain, train

STEPS = 16
FP16 = {"enabled": True, "initial_scale_power": 14, "loss_scale_window": 2, "hysteresis": 1}


@contextmanager
def fp16_on_any_processor() -> Iterator[None]:
    """torch computes fp16 on every CPU; DeepSpeed asks for instructions made for it."""
    accelerator = get_accelerator()
    accelerator.is_fp16_supported = lambda: True
    try:
        yield
    finally:
        del accelerator.is_fp16_supported


@dataclass
class Run:
    """What a training left.

    Attributes:
        applied: whether each step was applied.
        scales: loss scale before each step.
        weights: of each step, this rank's.
        norms: gradient norm of each step.
    """

    applied: list[bool]
    scales: list[float]
    weights: list[Tensor]
    norms: list[float]
    parameters: list[Tensor]
    state_kept_over_skips: bool


def fp16_beside_float32(strategy: str, stage: int, accumulation_steps: int) -> tuple[Run, Run]:
    """A training in fp16 whose loss scale grows until steps overflow, and one in float32 on the steps it applied."""
    batches = data(STEPS, accumulation_steps)
    presence = {
        "strategy": strategy,
        "estimator": "exact",
        "schedule": {"kind": "two_stage", "tau_direct": 0.5, "tau_inverse": -0.5, "switch_step": 4},
        "alignment": True,
        "weighting": {"features": ["norm", "momentum"]},
    }
    with fp16_on_any_processor():
        narrow = _run(batches, presence, stage=stage, accumulation_steps=accumulation_steps, fp16=FP16)
    kept = [step for step, applied in zip(batches, narrow.applied, strict=True) if applied]
    wide = _run(torch.stack(kept), presence, stage=stage, accumulation_steps=accumulation_steps)
    return narrow, wide


def fp16_with_outliers() -> list[bool]:
    """Whether steps were applied in fp16; from the second on a sample has sixteen times the targets of all others."""
    batches = data(4, 3)
    labels = torch.full_like(batches, -100)
    labels[..., 1] = batches[..., 1]
    labels[1:, 2, 0, 1] = batches[1:, 2, 0, 1]
    presence = {"estimator": "exact", "loss_normalizer": "sum"}
    applied = []
    with fp16_on_any_processor():
        fp16 = FP16 | {"initial_scale_power": 6, "loss_scale_window": 1000}
        engine = start(presence=presence, accumulation_steps=3, fp16=fp16)
        for step, targets in zip(batches, labels, strict=True):
            train(engine, step[None], targets[None])
            applied.append(engine.was_step_applied())
        engine.destroy()
    return applied


def fp16_overflow(strategy: str, planned: int) -> tuple[int, bool]:
    """A step of 2 micro-batches, of ``planned`` ones, that overflows in every sample.

    Returns:
        The number of weights, and whether it was applied.
    """
    presence = {"strategy": strategy, "statistics": "running" if strategy == "one_pass" else "batch"}
    with fp16_on_any_processor():
        fp16 = FP16 | {"initial_scale_power": 32}
        engine = start(presence=presence, stage=1, accumulation_steps=planned, fp16=fp16)
        for index, micro_batch in enumerate(data(1, 2)[0]):
            ids = micro_batch[dist.get_rank()]
            engine.set_gradient_accumulation_boundary(index == 1)
            engine.backward(engine(input_ids=ids, labels=ids))
            engine.step()
        weights, applied = engine.presence.weights, engine.was_step_applied()
        assert not weights.any()
        engine.destroy()
    return len(weights), applied


def _run(batches: Tensor, presence: dict[str, Any], **settings: Any) -> Run:
    engine = start(presence=presence, **settings)
    run, same = Run([], [], [], [], [], True), True
    for step in batches:
        before = plain(engine.presence.state_dict())
        run.scales.append(float(getattr(engine.optimizer, "loss_scale", 1.0)))
        train(engine, step[None])
        run.applied.append(engine.was_step_applied())
        run.norms.append(float(engine.get_global_grad_norm()))
        run.weights.append(engine.presence.weights)
        if not run.applied[-1]:
            same = same and plain(engine.presence.state_dict()) == before
    run.parameters, run.state_kept_over_skips = full_parameters(engine), same
    engine.destroy()
    return run


def bfloat16(strategy: str, stage: int, accumulation_steps: int) -> dict[str, Any]:
    """Weights of the last of three steps and losses of all, by whether in bf16 or in float32."""
    weights, losses = {}, {}
    for enabled in (False, True):
        presence = {"strategy": strategy, "estimator": "exact", "schedule": {"kind": "constant", "tau_direct": 0.5}}
        engine = start(stage=stage, accumulation_steps=accumulation_steps, bf16={"enabled": enabled}, presence=presence)
        losses[enabled] = train(engine, data(3, accumulation_steps))
        weights[enabled], dtype = engine.presence.weights, engine.presence.scores.dtype
        engine.destroy()
    return {"weights": weights, "losses": losses, "dtype": dtype}
