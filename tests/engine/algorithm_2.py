"""Runs on every rank of a pool: the paper's Algorithm 2 on a small mT5, by the engine and written out."""

import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor
from torch.nn import functional as F

import presence_ds
from tests.engine.training import deepspeed_config
from tests.families.models import FAMILIES
from tests.families.samples import Batch, make_batch

SAMPLES, INPUTS, TARGETS = 32, 9, 5  # of the whole batch, over ranks and microbatches
LEARNING_RATE = 0.01


def gradients(microbatches: int, stage: int, strategy: str, tau: float) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The gradient of one step, by the engine and by Algorithm 2 in float64, and the paper's weights [n]."""
    batch = make_batch(SAMPLES, INPUTS, target_length=TARGETS, ignored=0.2, padding_side="right", seed=4)
    model = FAMILIES["mt5"].build(tied=False, dtype=torch.float32)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    ranks, rank = dist.get_world_size(), dist.get_rank()
    per_rank = SAMPLES // (microbatches * ranks)
    engine, *_ = presence_ds.initialize(
        model=model,
        config=deepspeed_config(stage, microbatches, train_micro_batch_size_per_gpu=per_rank),
        presence={
            "preset": "paper",
            "layers": "first",
            "estimator": "exact",
            "granularity": "global_microbatch",
            "strategy": strategy,
            "loss_normalizer": float(TARGETS),
            "schedule": {"kind": "constant", "tau_direct": tau},
        },
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
    )
    for microbatch in _parts(batch, microbatches):
        engine.backward(engine(**_parts(microbatch, ranks)[rank]))
        engine.step()
    after = [safe_get_full_fp32_param(parameter).cpu() for parameter in engine.module.parameters()]
    found = [(old - new) / LEARNING_RATE for old, new in zip(before, after, strict=True)]
    engine.destroy()
    return found, *_algorithm_2(batch, microbatches, tau)


def _algorithm_2(batch: Batch, microbatches: int, tau: float) -> tuple[list[Tensor], Tensor]:
    """Every microbatch's gradient g_i is kept; s_i = ‖g_i restricted to K‖²; G = Σ_i softmax(τ z(s))_i g_i."""
    model = FAMILIES["mt5"].build(tied=False, dtype=torch.float32).double()
    parameters = dict(model.named_parameters())
    in_k = [name.startswith(("encoder.block.0.", "decoder.block.0.")) for name in parameters]
    assert sum(in_k) == 10 + 15  # of the encoder: 5 of attention, 3 of feed-forward, 2 norms; of the decoder 5 more
    kept, scores = [], []
    for part in _parts(batch, microbatches):
        labels = part.pop("labels")
        logits = model(**part, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / (len(labels) * TARGETS)
        gradient = torch.autograd.grad(loss, list(parameters.values()))
        kept.append(gradient)
        scores.append(sum(g.square().sum() for g, chosen in zip(gradient, in_k, strict=True) if chosen))
    s = torch.stack(scores)
    s = (s - s.mean()) / s.var(correction=0).sqrt()
    w = (tau * s).exp() / (tau * s).exp().sum()
    total = [sum(weight * g for weight, g in zip(w, of_one, strict=True)) for of_one in zip(*kept, strict=True)]
    return [g.float() for g in total], w


def _parts(batch: Batch, count: int) -> list[Batch]:
    parts = {name: value.chunk(count) for name, value in batch.items()}
    return [{name: values[index] for name, values in parts.items()} for index in range(count)]
