"""Runs on every rank of a pool: writes checkpoints to export."""

from typing import Any

import torch
from torch import Tensor

import presence_ds
from tests.engine.training import data, deepspeed_config, optimizer_for, train
from tests.models import tiny_model, tokens

PROMPTS = tokens(3, 11, seed=5)


def write_checkpoint(folder: str, stage: int, precision: str, kind: str, tied: bool) -> dict[str, Any]:
    """Train two steps with one norm frozen and save under ``folder``/here; what the engine computes then."""
    model = tiny_model(kind, tied=tied)
    norm = model.get_submodule("model.norm" if kind == "llama" else "transformer.ln_f")
    norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    norm.requires_grad_(False)
    engine, *_ = presence_ds.initialize(
        model=model,
        config=deepspeed_config(stage, 1, bf16={"enabled": precision == "bf16"}),
        optimizer=optimizer_for("adam", [parameter for parameter in model.parameters() if parameter.requires_grad]),
    )
    train(engine, data(2, 1))
    engine.save_checkpoint(folder, tag="here")
    return {"logits": logits(engine)}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """[3, 11, vocabulary] float32, of the prompts."""
    model.eval()
    return model(input_ids=PROMPTS).logits.float()
