"""Runs on every rank of a pool: the collectives of an optimizer step, DeepSpeed's own and with PRESENCE."""

from typing import Any

import deepspeed
import torch
import torch.distributed as dist

import presence_ds
from benchmarks.communication import CountCollectives, ScaleSetting, step_traffic
from tests.engine.training import MICRO_BATCH, data, deepspeed_config, optimizer_for, train
from tests.models import tiny_model

SKETCH = 900  # numbers for alignments: more bytes than are left open below
WARMUP = 3  # steps in which ZeRO-3 learns the order of the modules
Counts = dict[str, tuple[int, int]]  # kind of collective: calls, payload


def count(
    stage: int, strategy: str | None, accumulation_steps: int, preset: str, evaluates: bool, keeps: bool
) -> Counts:
    """Of one step.

    ``evaluates``: an evaluation and a step came before; ``keeps``: ZeRO-3 keeps what the forward has gathered.
    """
    model = tiny_model("llama", tied=False)
    config = deepspeed_config(stage, accumulation_steps)
    if not keeps:
        config["zero_optimization"] |= {"stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}
    options: dict[str, Any] = {
        "model": model,
        "config": config,
        "optimizer": optimizer_for("adamw", model.parameters()),
    }
    if strategy is None:
        engine, *_ = deepspeed.initialize(**options)
    else:
        presence = {"strategy": strategy, "projection_dim": 4, "alignment_dim": SKETCH, "preset": preset}
        if preset != "calibrated":
            del presence["alignment_dim"]
        engine, *_ = presence_ds.initialize(**options, presence=presence)
    batches = data(WARMUP + 2, accumulation_steps)
    train(engine, batches[:WARMUP])
    if evaluates:
        engine.eval()
        with torch.no_grad():
            engine(input_ids=batches[0, 0, 0])
        engine.train()
        train(engine, batches[WARMUP:-1])
    with CountCollectives() as counter:
        train(engine, batches[-1:])
    engine.destroy()
    return {kind: (found.calls, found.payload) for kind, found in counter.traffic.items()}


def expect(stage: Any, strategy: Any, accumulation_steps: int, preset: str, keeps: bool) -> Counts:
    """What the model of the communication says of the same step."""
    setting = ScaleSetting(
        parameters=sum(parameter.numel() for parameter in tiny_model("llama", tied=False).parameters()),
        ranks=dist.get_world_size(),
        stage=stage,
        strategy=strategy,
        micro_batch_size=MICRO_BATCH,
        accumulation_steps=accumulation_steps,
        bytes_per_number=4,
        columns=5 if preset == "calibrated" else 4,  # and what is in embeddings and head
        sketch=SKETCH if preset == "calibrated" else 0,
        keeps_gathered=keeps,
    )
    return {kind: (found.calls, found.payload) for kind, found in step_traffic(setting).items()}
