"""Runs on every rank of a pool: the same training with `engine.compile` and without."""

from typing import Any

import torch
import torch._dynamo
import torch.distributed as dist
from torch._dynamo.utils import counters

from tests.engine.behaviour import start
from tests.engine.dropout import SEED, dropout_model
from tests.engine.training import data, full_parameters, train
from tests.models import tiny_model

STEPS = 4


def compare(kind: str, backend: str, accumulation_steps: int, checkpointing: bool, presence: dict[str, Any]) -> Any:
    """Largest difference of a parameter, how far training moved one, and the number of graphs that were compiled."""
    ends = []
    for compiled in (False, True):
        torch._dynamo.reset()
        counters.clear()
        model = _model(kind)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        engine = start(model, accumulation_steps=accumulation_steps, presence=presence)
        if compiled:
            engine.compile(backend)
        torch.manual_seed(SEED + dist.get_rank())
        train(engine, data(STEPS, accumulation_steps))
        ends.append(full_parameters(engine))
        graphs = counters["stats"]["unique_graphs"]
        engine.destroy()
        assert compiled == (graphs > 0)
    moved = max((ours - theirs).abs().max().item() for ours, theirs in zip(ends[0], before, strict=True))
    differs = max((ours - theirs).abs().max().item() for ours, theirs in zip(*ends, strict=True))
    return differs, moved, graphs


def _model(kind: str) -> torch.nn.Module:
    return dropout_model() if kind == "gpt2 with dropout" else tiny_model(kind, tied=True)
