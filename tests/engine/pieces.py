"""Runs on every rank of a pool: documents packed into rows, and the same documents each in a row of its own."""

from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

import presence_ds
from presence_ds.engine import checks
from presence_ds.errors import ConfigError
from tests.engine.documents import LENGTH, SIZES, Packed, build, pack
from tests.engine.precision import FP16, fp16_on_any_processor
from tests.engine.training import deepspeed_config, full_parameters, plain

LEARNING_RATE = 0.02  # larger ones magnify rounding
ROWS = [SIZES[2], SIZES[3]]  # of micro-batches, of six documents each


@dataclass
class Run:
    """What a training left.

    Attributes:
        weights, statistics: of each step.
        applied: whether each step was applied.
        state_kept_over_skips: whether those that were not left the state of weighing alone.
        learned: every number in that state at the end.
    """

    weights: list[Tensor] = field(default_factory=list)
    statistics: list[dict[str, Any]] = field(default_factory=list)
    applied: list[bool] = field(default_factory=list)
    state_kept_over_skips: bool = True
    parameters: list[Tensor] = field(default_factory=list)
    learned: list[float] = field(default_factory=list)


def packed_and_alone(presence: dict[str, Any], steps: int, *, fp16: bool = False) -> tuple[Run, Run]:
    """A training on packed documents by document, and one on single documents by sample."""
    rank = dist.get_rank()
    packs = [pack("llama", ROWS[(step + rank) % 2], seed=step * 2 + rank, dtype=torch.float32) for step in range(steps)]
    of_rows = [(packed.batch, torch.arange(3)) for packed in packs]
    of_documents = [(_alone(packed), torch.tensor(packed.rows)) for packed in packs]
    with fp16_on_any_processor():
        return (
            _train(presence | {"granularity": "document"}, of_rows, fp16),
            _train(presence, of_documents, fp16),
        )


def _alone(packed: Packed) -> dict[str, Tensor]:
    """[6, LENGTH], padded at the end."""
    ids = [document["input_ids"][0] for document in packed.alone]
    return {
        name: torch.stack([F.pad(row, (0, LENGTH - len(row)), value=filler) for row in ids])
        for name, filler in (("input_ids", 0), ("labels", -100))
    }


def _train(presence: dict[str, Any], batches: list[tuple[dict[str, Tensor], Tensor]], fp16: bool) -> Run:
    model = build("llama", tied=False, dtype=torch.float32)
    size = len(batches[0][1])
    settings = deepspeed_config(2, 1, train_micro_batch_size_per_gpu=size, fp16=FP16 | {"enabled": fp16})
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    engine, *_ = presence_ds.initialize(model=model, config=settings, presence=presence, optimizer=optimizer)
    run = Run()
    for batch, sources in batches:
        before = plain(engine.presence.state_dict())
        engine.backward(engine(**batch, source_ids=sources, use_cache=False))
        engine.step()
        run.weights.append(engine.presence.weights)
        run.statistics.append(engine.presence.statistics)
        run.applied.append(engine.was_step_applied())
        if not run.applied[-1]:
            run.state_kept_over_skips &= plain(engine.presence.state_dict()) == before
    run.parameters = full_parameters(engine)
    state = engine.presence.state_dict()
    run.learned = _numbers([value for name, value in state.items() if name != "config"])
    engine.destroy()
    return run


def _numbers(value: Any) -> list[float]:
    if isinstance(value, Tensor):
        return value.flatten().double().tolist()
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in _numbers(part)]
    return [float(value)] if isinstance(value, float | int) else []


def first_batch() -> dict[str, Any]:
    """What the engine does with its first batch of documents beside training on it."""
    model = build("gpt2", tied=True, dtype=torch.float32)
    model.transformer.h[0].eval()
    engine, *_ = presence_ds.initialize(
        model=model,
        config=deepspeed_config(2, 1),
        presence={"granularity": "document"},
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
    )
    found: dict[str, Any] = {"modes after the trial": _training(model)}
    batch = pack("gpt2", SIZES[dist.get_rank()]).batch  # of 7 documents, or 9
    assert engine.presence.scorer is not None
    room = engine.presence.scorer.sketch_width * 7
    with mock.patch.object(checks, "LARGEST_SKETCHES", room):
        try:
            engine(**batch, use_cache=False)
        except ConfigError as error:
            found["too many"] = str(error)
    forwards: list[bool] = []  # whether in training
    handle = model.register_forward_pre_hook(lambda module, _: forwards.append(module.training))
    for _ in range(2):
        engine.backward(engine(**batch, use_cache=False))
        engine.step()
    handle.remove()
    engine.destroy()
    return found | {"modes after a step": _training(model), "forwards": forwards}


def _training(model: Any) -> list[bool]:
    return [model.training, model.transformer.h[0].mlp.training, model.transformer.h[1].mlp.training]
