"""Runs on every rank of a pool: `PresenceTrainer` for a combination of options, and once more from its checkpoint."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from presence_ds.engine import PresenceConfig
from presence_ds.errors import PresenceError
from presence_ds.hf.trainer import flatten
from tests.combinations.factors import STEPS, instantiated
from tests.combinations.figures import check_statistics, strict_json
from tests.hf.training import make_trainer, settings
from tests.models import tokens


class Watch(transformers.TrainerCallback):
    """Feeds the reference where there is one, and keeps statistics and weights of every step."""

    def __init__(self, trainer: Any, config: PresenceConfig) -> None:
        self.trainer, self.config = trainer, config
        self.statistics: list[dict[str, Any]] = []
        self.weights: list[torch.Tensor] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.config.uses_reference:
            ids = tokens(2, 17, seed=8)
            self.trainer.model_wrapped.train()
            self.trainer.model_wrapped.observe_reference(input_ids=ids, labels=ids)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        presence = self.trainer.model_wrapped.presence
        check_statistics(presence.statistics, self.config)
        self.statistics.append(presence.statistics)
        self.weights.append(presence.weights)


def train(folder: str, section: dict[str, Any], stage: int, accumulation: int, resume: str | None) -> Watch:
    """What the `Watch` of a trainer saw."""
    trainer = make_trainer(
        folder,
        settings(stage),
        presence=section,
        gradient_accumulation_steps=accumulation,
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
    )
    watch = Watch(trainer, PresenceConfig(**instantiated(section)))
    trainer.add_callback(watch)
    try:
        trainer.train(resume_from_checkpoint=resume)
    finally:
        trainer.accelerator.free_memory()
        unset_hf_deepspeed_config()  # a trainer of ZeRO-3 has models of whoever comes next made in partitions
    return watch


def run(folder: str, section: dict[str, Any], stage: int, accumulation: int) -> str | None:
    """Two steps, and the second again from a checkpoint of the first, to the bit; the error that refused it, if any."""
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # left by the one before
    try:
        whole = train(folder, section, stage, accumulation, None)
    except PresenceError as error:
        return str(error)
    assert len(whole.statistics) == STEPS
    for weights in whole.weights:
        total = weights.sum()
        dist.all_reduce(total)
        assert abs(total.item() - 1.0) < 1e-5
    state = Path(folder) / f"checkpoint-{STEPS}" / "trainer_state.json"
    logged = strict_json(state.read_text())["log_history"]
    assert len([entry for entry in logged if "presence/effective_sample_size" in entry]) == STEPS
    dist.barrier()

    resumed = train(folder, section, stage, accumulation, f"{folder}/checkpoint-1")
    assert [*map(flatten, resumed.statistics)] == [*map(flatten, whole.statistics[1:])]  # NaN is not itself
    assert torch.equal(resumed.weights[-1], whole.weights[-1])
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(Path(folder))
    return None
