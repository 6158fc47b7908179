"""Scoring a corpus and bare passes, clocked in turn in one process. Started by `benchmarks.score`."""

import json
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor

from benchmarks.ranks import one_process
from benchmarks.setting import Setting
from presence_ds import PresenceConfig
from presence_ds.data import Corpus, DataConfig, PackedDataset
from presence_ds.data.samples.objective import Causal
from presence_ds.engine.inference import Inference, scoring_config
from presence_ds.influence import SampleLoss
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.stop_config import StopConfig
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.recipe.recipe import Recipe, TrainingConfig
from presence_ds.trainer.scoring.model_scores import ModelScores

BARE = {"bare pass, the model's own loss": None, "bare pass, the chunked loss": SampleLoss(shifted=False)}
SCORED = {"scores, all layers": "all", "scores, first layers": "first"}


def work(setting: Setting, batches: int, pairs: int, result: Path) -> None:
    """Measure, and write the seconds of every stretch of every variant to ``result``, as JSON.

    Args:
        setting: The model and its samples.
        batches: Batches of a stretch.
        pairs: Stretches of each variant, after one that does not count.
        result: A file that does not exist.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(setting.cpu_threads())
    with one_process():
        dataset = _dataset(batches * setting.batch_size, setting)
        runs: dict[str, Callable[[], Any]] = {}
        for name, loss in BARE.items():
            runs[name] = _bare(setting, dataset, loss)
        for name, layers in SCORED.items():
            runs[name] = _scored(setting, dataset, layers)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(pairs + 1):
            for name in runs if number % 2 == 0 else reversed(runs):  # none always finds the caches warm
                taken = _clock(runs[name])
                if number > 0:
                    seconds[name].append(taken)
    result.write_text(json.dumps(seconds), encoding="utf-8")


def _dataset(count: int, setting: Setting) -> PackedDataset:
    ids = np.random.default_rng(0).integers(setting.vocabulary, size=(count, setting.sequence_length), dtype=np.int32)
    columns = {"input_ids": list(ids), "source_id": [0] * count, "document_id": [""] * count, "offset": [0] * count}
    features = datasets.Features(
        input_ids=datasets.List(datasets.Value("int32"), length=setting.sequence_length),
        source_id=datasets.Value("int32"),
        document_id=datasets.Value("string"),
        offset=datasets.Value("int64"),
    )
    rows = datasets.Dataset.from_dict(columns, features=features)
    return PackedDataset(rows, "train", Causal(setting.sequence_length, None))


def _bare(setting: Setting, dataset: PackedDataset, loss: SampleLoss | None) -> Callable[[], Any]:
    """Forward, and `torch.autograd.grad` of the summed loss with respect to the input embeddings."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    model = setting.model().to(device, kind).eval()
    samples = torch.stack([sample["input_ids"] for sample in dataset.__getitems__(list(range(len(dataset))))]).to(
        device
    )

    def run() -> list[Tensor]:
        found = []
        for ids in samples.split(setting.batch_size):
            embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
            if loss is None:
                total = model(inputs_embeds=embedded, labels=ids).loss * len(ids)
            else:
                total = loss(model(inputs_embeds=embedded).logits, ids).sum()
            found.append(torch.autograd.grad(total, embedded)[0])
        return found

    return run


def _scored(setting: Setting, dataset: PackedDataset, layers: str) -> Callable[[], Any]:
    """What ``presence score`` does with a stretch of rows but for its file."""
    config = scoring_config(PresenceConfig(layers=layers, projection_dim=setting.projection_dim))
    settings = {"bf16": {"enabled": setting.precision == "bf16"}}
    inference = Inference(setting.model(), config, settings, micro_batch_size=setting.batch_size)
    recipe = Recipe(data=DataConfig(), training=TrainingConfig(micro_batch_size=setting.batch_size))
    corpus: Any = Corpus(train=dataset, validation=dataset, source_names=[""], tokenizer=None, report=None)  # type: ignore[arg-type]
    ranks, signals, console = Ranks(), StopSignals(StopConfig()), Console(quiet=True)
    scores = ModelScores("", inference, corpus, recipe, ranks, signals, console)
    return lambda: list(scores([range(len(dataset))]))


def _clock(run: Callable[[], Any]) -> float:
    """Seconds of the GPU; without one, of the processor by this process, whatever others take of it."""
    if not torch.cuda.is_available():
        started = time.process_time()
        run()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    auto_cli(work, as_positional=False)
