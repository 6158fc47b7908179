"""Runs on every rank of a pool: the loop of DeepSpeed for a combination of options, and once more from a checkpoint."""

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import presence_ds
from presence_ds.engine import PresenceConfig
from presence_ds.errors import PresenceError
from tests.combinations.factors import STEPS, instantiated
from tests.combinations.figures import check_statistics
from tests.engine.training import data, deepspeed_config, full_parameters, optimizer_for
from tests.models import tiny_model


def start(section: dict[str, Any], stage: int, accumulation: int, precision: str) -> Any:
    model = tiny_model("gpt2", tied=True)
    return presence_ds.initialize(
        model=model,
        config=deepspeed_config(stage, accumulation, bf16={"enabled": precision == "bf16"}),
        optimizer=optimizer_for("adamw", model.parameters()),
        presence=section,
    )[0]


def take_step(engine: Any, batches: Tensor, config: PresenceConfig) -> Tensor:
    """One optimizer step on this rank's ``batches`` [G, b, T]; the weights, [G·b]."""
    if config.uses_reference:
        engine.observe_reference(**packed(batches[0].flip(0), config))
    sources = torch.arange(batches.shape[1]) % 2
    for ids in batches:
        loss = engine(**packed(ids, config), source_ids=sources)
        assert loss.isfinite()
        engine.backward(loss)
        engine.step()
    check_statistics(engine.presence.statistics, config)
    weights = engine.presence.weights
    assert weights.isfinite().all()
    total = weights.sum()
    dist.all_reduce(total)
    assert abs(total.item() - 1.0) < 1e-5
    return weights


def packed(ids: Tensor, config: PresenceConfig) -> dict[str, Tensor]:
    """A micro-batch of ``ids`` [b, T]; of granularity document in pieces of 7, 5 or 3 tokens, on rank 1 of 7 or 5."""
    batch = {"input_ids": ids, "labels": ids}
    if config.granularity != "document":
        return batch
    sizes = torch.tensor([7, 5, 3 + 2 * dist.get_rank()])[torch.arange(len(ids)) % 3, None]
    positions = torch.arange(ids.shape[1])
    return batch | {"position_ids": positions % sizes, "document_indices": positions // sizes}


def run(folder: str, section: dict[str, Any], stage: int, accumulation: int, precision: str) -> str | None:
    """Two steps, and the second again from a checkpoint of the first, to the bit; the error that refused it, if any."""
    config = PresenceConfig(**instantiated(section))
    batches = data(STEPS, accumulation)[:, :, dist.get_rank()]
    try:
        engine = start(section, stage, accumulation, precision)
    except PresenceError as error:
        return str(error)
    take_step(engine, batches[0], config)
    engine.save_checkpoint(folder, tag="first")
    weights, parameters = take_step(engine, batches[1], config), full_parameters(engine)
    statistics = engine.presence.statistics
    engine.destroy()

    engine = start(section, stage, accumulation, precision)
    engine.load_checkpoint(folder, tag="first")
    assert torch.equal(take_step(engine, batches[1], config), weights)
    assert engine.presence.statistics == statistics
    assert all(map(torch.equal, full_parameters(engine), parameters))
    engine.destroy()
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(Path(folder))
    return None


def with_nothing_else(stage: int) -> list[dict[str, Any]]:
    """Statistics of two steps of an engine that was given a model and a DeepSpeed configuration."""
    torch_adam = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
    settings = deepspeed_config(stage, 1, optimizer=torch_adam)
    engine, *_ = presence_ds.initialize(model=tiny_model("llama", tied=True), config=settings)
    found = []
    for ids in data(STEPS, 1)[:, 0, dist.get_rank()]:
        take_step(engine, ids[None], PresenceConfig())
        found.append(engine.presence.statistics)
    engine.destroy()
    return found
