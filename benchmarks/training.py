"""Ordinary training of the small models that estimates are measured on."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.families import Family
from benchmarks.text import Texts, corrupt_spans

BATCH_SIZE = 16
Batches = list[dict[str, Tensor]]


def batches(samples: Tensor, family: Family, vocabulary: int, seed: int = 0, size: int = BATCH_SIZE) -> Batches:
    """``samples`` [N, T] as batches of ``size`` for a model of ``family``."""
    if family.encoder_decoder:
        return [corrupt_spans(ids, vocabulary, seed + number) for number, ids in enumerate(samples.split(size))]
    return [{"input_ids": ids, "labels": ids} for ids in samples.split(size)]


def train(model: Any, family: Family, texts: Texts, steps: int, learning_rate: float) -> None:
    """Ordinary training with AdamW: a tenth of the steps to warm up, then down to a tenth of the rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    warmup = max(1, steps // 10)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        chosen = texts.training[torch.randint(len(texts.training), (BATCH_SIZE,), generator=generator)]
        (batch,) = batches(chosen, family, texts.vocabulary, seed=1 + step)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        progress = max(0.0, (step - warmup) / max(1, steps - warmup))
        optimizer.param_groups[0]["lr"] = learning_rate * min((step + 1) / warmup, 1 - 0.9 * progress)
        optimizer.step()
    optimizer.zero_grad()
