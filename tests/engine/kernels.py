"""Runs on every rank of a pool whose Triton interprets kernels."""

from typing import Any

import torch
import torch.distributed as dist

import presence_ds
from presence_ds.influence.kernels import trial
from tests.engine.training import data, deepspeed_config, full_parameters, optimizer_for, train
from tests.models import tiny_model

STEPS = 3


def trained(with_kernels: list[int], section: dict[str, Any]) -> dict[str, Any]:
    """A short training in which ranks ``with_kernels`` use kernels, and what it came to on this rank."""
    torch.manual_seed(0)
    model = tiny_model("llama", tied=True)
    presence = section | {"projection_dim": 8, "kernels": dist.get_rank() in with_kernels}
    engine, *_ = presence_ds.initialize(
        model=model,
        config=deepspeed_config(0, 2),
        presence=presence,
        optimizer=optimizer_for("adamw", model.parameters()),
    )
    weights, statistics = [], []
    for batches in data(STEPS, 2).split(1):
        train(engine, batches)
        weights.append(engine.presence.step_weights.clone())
        statistics.append(engine.presence.statistics)
    assert bool(trial._passed) == (dist.get_rank() in with_kernels)
    assert not trial._failed
    trial._passed.clear()
    found = {"weights": torch.stack(weights), "statistics": statistics, "parameters": full_parameters(engine)}
    engine.destroy()
    return found
