"""Evaluation on every rank of a pool, and the figures it should find."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional as F

import presence_ds
from presence_ds.trainer.callbacks.evaluation import Evaluation
from presence_ds.trainer.callbacks.evaluation_config import EvaluationConfig
from presence_ds.trainer.ranks.failure import Failures
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.run_directory.hang_watch import HangWatch
from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trainer import Trainer
from tests.models import VOCABULARY, tiny_model, tokens

SAMPLES, MICRO_BATCH, LENGTH = 24, 3, 17
NAMES = ["web", "books", "of another part"]
TOKEN_BYTES = torch.arange(VOCABULARY) % 7  # token 0, 7, 14, ... have no text


def samples() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input ids and labels [samples, length], source ids [samples]; sample 4 has ignored labels, 5 nothing else."""
    ids = tokens(SAMPLES, LENGTH, seed=3)
    labels = ids.clone()
    labels[4, 5:9] = -100
    labels[5] = -100
    return ids, labels, torch.arange(SAMPLES) % 2


def evaluate(stage: int, max_batches: int | None = None, by_frequency: bool = False) -> dict[str, Any]:
    """What `Evaluation` finds on the ranks of this pool, each of which takes every world_size-th micro-batch."""
    model = tiny_model("llama", tied=True)
    settings = {
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine, *_ = presence_ds.initialize(model=model, config=settings, optimizer=optimizer)
    parts = [tensor.split(MICRO_BATCH) for tensor in samples()]
    batches = [dict(zip(("input_ids", "labels", "source_ids"), part, strict=True)) for part in zip(*parts, strict=True)]
    options: Any = {
        "total_steps": 1,
        "log_every_steps": 1,
        "tokens_per_step": 1,
        "text_tokens": int,
        "source_names": NAMES,
    }
    nothing: Any = iter(())  # no step is taken
    ranks = Ranks()
    trainer = Trainer(engine, nothing, ranks, {}, HangWatch(ranks, RunDirectory(Path()), None, Failures()), **options)
    trainer.step = 1
    mine = batches[dist.get_rank() :: dist.get_world_size()]
    metrics: dict[str, Any] = {}
    config = EvaluationConfig(max_batches=max_batches, by_frequency=by_frequency)
    Evaluation(config, mine, TOKEN_BYTES).on_step(trainer, metrics)
    assert engine.module.training
    engine.destroy()
    return metrics


def expected() -> dict[str, list[float]]:
    """Summed loss, targets and bytes of the first two sources."""
    sums = {name: [0.0, 0.0, 0.0] for name in NAMES[:2]}
    for source, target, loss in targets():
        figures = sums[NAMES[source]]
        figures[0] += loss
        figures[1] += 1
        figures[2] += TOKEN_BYTES[target].item()
    return sums


def targets() -> Iterator[tuple[int, int, float]]:
    """Source, token and loss, one sample and one target at a time."""
    model = tiny_model("llama", tied=True).eval()
    for ids, labels, source in zip(*samples(), strict=True):
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0]
        for position, target in enumerate(labels[1:].tolist()):
            if target != -100:
                yield int(source), target, F.cross_entropy(logits[position], torch.tensor(target)).item()
