"""Runs on every rank of a pool: a short training under DeepSpeed, and what the reference got on the same data."""

from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor

import presence_ds
from tests.engine.reference import Reference
from tests.models import tiny_model, tokens

MICRO_BATCH, LENGTH = 3, 17


def optimizer_for(name: str, parameters: Any) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.5)
    return torch.optim.AdamW(parameters, lr=1e-2, eps=1e-3)  # a large ε: Adam's division would magnify rounding


def deepspeed_config(stage: int, accumulation_steps: int, **changes: Any) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": 0.0,
        "zero_optimization": {
            "stage": stage,
            "stage3_param_persistence_threshold": 0,
            "reduce_bucket_size": 20_000,
        },
        "zero_allow_untested_optimizer": True,
    } | changes


def data(steps: int, accumulation_steps: int) -> Tensor:
    """Token ids [steps, G, ranks, b, T], the same on every rank."""
    return tokens(steps, accumulation_steps, dist.get_world_size(), MICRO_BATCH, LENGTH, seed=1)


def full_parameters(engine: Any) -> list[Tensor]:
    """The whole float32 parameters, gathered from every rank."""
    if engine.zero_optimization_stage() == 0:
        return [parameter.detach().float().cpu().clone() for parameter in engine.module.parameters()]
    return [safe_get_full_fp32_param(parameter).cpu().clone() for parameter in engine.module.parameters()]


def train(engine: Any, batches: Tensor, targets: Tensor | None = None) -> list[float]:
    """One optimizer step for every leading element of ``batches``; the losses the engine returned.

    ``targets`` are the labels, if they are not the ids.
    """
    losses = []
    for step, its_targets in zip(batches, batches if targets is None else targets, strict=True):
        for micro_batch, labels in zip(step, its_targets, strict=True):
            own, its_labels = (of_all[dist.get_rank()].to(engine.device) for of_all in (micro_batch, labels))
            loss = engine(input_ids=own, labels=its_labels)
            loss = loss if isinstance(loss, Tensor) else loss.loss
            engine.backward(loss)
            engine.step()
            losses.append(loss.item())
    return losses


@dataclass(frozen=True)
class Case:
    """A training to compare with the reference.

    Attributes:
        clip: gradient_clipping.
        poison: whether one sample of every step is NaN.
        targetless: whether samples lack targets: two of the first step, all of the second, all of a rank in the third,
            and one rank's first micro-batch in the fourth.
        zero: changed fields of zero_optimization.
        settings: other fields of the DeepSpeed configuration.
        presence: other fields of the presence section.
        checkpointing: "reentrant", "non_reentrant" or None: of activations.
    """

    kind: str = "llama"
    tied: bool = True
    stage: int = 2
    accumulation_steps: int = 1
    strategy: str = "one_pass"
    optimizer: str = "sgd"
    clip: float = 0.0
    poison: bool = False
    targetless: bool = False
    zero: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    checkpointing: str | None = None
    presence: dict[str, Any] = field(default_factory=dict)


def compare_with_reference(case: Case) -> dict[str, float]:
    """Train four steps, two of them direct and two inverse, beside the reference; the largest differences seen."""
    steps, accumulation_steps = 4, case.accumulation_steps
    model, reference_model = (tiny_model(case.kind, tied=case.tied) for _ in range(2))
    batches = data(steps, accumulation_steps)
    if case.poison:  # token 5 makes a sample's loss NaN; one sample of every step holds it
        batches[batches == 5] = 6
        batches[:, 0, -1, 2, 4] = 5
        for one in (model, reference_model):
            one.get_input_embeddings().weight.data[5] = float("nan")
    labels = batches.clone()
    if case.targetless:
        labels[0, 0, -1, 2], labels[0, -1, 0, 1, 1:] = -100, -100  # a causal model's first label is no target
        labels[1] = -100
        if dist.get_world_size() > 1:
            labels[2, :, 1], labels[3, 0, 0] = -100, -100
    reference = Reference(
        reference_model,
        optimizer_for(case.optimizer, reference_model.parameters()),
        [1.0, 1.0, -1.0, -1.0],
        case.clip,
        signal=case.presence.get("signal", "self_influence"),
        group=case.presence.get("granularity", "sample"),
        keeps_running=accumulation_steps > 1 and case.strategy == "one_pass",
    )
    if case.checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": case.checkpointing == "reentrant"})
    config = deepspeed_config(case.stage, accumulation_steps, gradient_clipping=case.clip)
    config["zero_optimization"] |= case.zero
    config |= case.settings
    config["zero_force_ds_cpu_optimizer"] = False
    engine, *_ = presence_ds.initialize(
        model=model,
        config=config,
        presence={
            "preset": "paper",
            "estimator": "exact",
            "schedule": {"switch_step": 2},
            "strategy": case.strategy,
            **case.presence,
        },
        optimizer=optimizer_for(case.optimizer, model.parameters()),
    )
    rank = dist.get_rank()
    worst = dict.fromkeys(("weights", "scores", "losses", "norm", "sum", "alignments"), 0.0)
    for number, (step, targets) in enumerate(zip(batches, labels, strict=True), start=1):
        train(engine, step[None], targets[None])
        expected = reference.step(number, step, targets)
        without = int((targets[..., 1:] == -100).all(-1).sum())
        assert engine.presence.statistics["samples_without_targets"] == without
        assert engine.was_step_applied() == (expected is not None)
        if expected is None:
            assert not engine.presence.weights.any()
            continue
        seen = engine.presence.weights
        total = seen.double().sum().to(engine.device)
        dist.all_reduce(total)
        differences = {
            "weights": seen - expected["weights"][:, rank].flatten(),
            "losses": (engine.presence.losses.cpu() - expected["losses"][-1, rank]).nan_to_num(),
            "sum": total - 1,
        }
        if not case.poison:
            mean = expected["losses"].nanmean()
            worst["losses"] = max(worst["losses"], abs(engine.presence.statistics["loss"] - mean.item()))
        if engine.presence.scores is not None:  # there are none with signal loss
            differences["scores"] = (engine.presence.scores.cpu() / expected["scores"][-1, rank] - 1).nan_to_num()
        if case.presence.get("alignment"):
            off = engine.presence.alignments - expected["alignments"][:, rank].flatten()
            differences["alignments"] = off / expected["scores"].nan_to_num().max()  # of which it is a difference
        if case.stage > 0:  # where DeepSpeed reports no norm
            differences["norm"] = torch.as_tensor(float(engine.get_global_grad_norm()) / expected["norm"] - 1)
        for key, difference in differences.items():
            worst[key] = max(worst[key], difference.abs().max().item())
    found = full_parameters(engine)
    worst["parameters"] = max(
        (ours - theirs).nan_to_num().abs().max().item()
        for ours, theirs in zip(found, reference_model.parameters(), strict=True)
    )
    moved = zip(found, tiny_model(case.kind, tied=case.tied).parameters(), strict=True)
    worst["movement"] = max((ours - before).nan_to_num().abs().max().item() for ours, before in moved)
    worst["nonfinite"] = float(engine.presence.statistics["nonfinite_samples"])
    engine.destroy()
    return worst


def compare_uniform_with_plain(stage: int, accumulation_steps: int, strategy: str) -> float:
    """Largest parameter difference after four steps of plain DeepSpeed and of uniform weights."""
    batches = data(4, accumulation_steps)
    ends = []
    for presence in (None, {"signal": "uniform", "strategy": strategy}):
        model = tiny_model("llama", tied=True)
        config = deepspeed_config(stage, accumulation_steps)
        optimizer = optimizer_for("sgd", model.parameters())
        if presence is None:
            engine, *_ = deepspeed.initialize(model=model, config=config, optimizer=optimizer)
        else:
            engine, *_ = presence_ds.initialize(model=model, config=config, optimizer=optimizer, presence=presence)
        train(engine, batches)
        ends.append(full_parameters(engine))
        engine.destroy()
    return max((ours - theirs).abs().max().item() for ours, theirs in zip(*ends, strict=True))


def plain(state: Any) -> Any:
    """``state`` with lists in the place of tensors, so that it can be compared as a whole."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [plain(value) for value in state]
    return state.tolist() if isinstance(state, torch.Tensor) else state
