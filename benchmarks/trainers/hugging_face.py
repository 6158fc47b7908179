"""`transformers.Trainer` and `PresenceTrainer` on what the trainer of this package takes: model, samples, DeepSpeed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.trainers.run import Run
from presence_ds.data import open_corpus
from presence_ds.data.corpus.corpus import PackedDataset
from presence_ds.data.loader import RankSampler, build_loader
from presence_ds.hf import PresenceTrainer
from presence_ds.trainer.building.construction import build_model
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary
from presence_ds.trainer.recipe.plan import make_plan


class _InOrder(Dataset[dict[str, Tensor]]):
    """The corpus's samples in the order of the trainer of this package, so that taking them one by one gives it."""

    def __init__(self, corpus: PackedDataset, rows: list[int]) -> None:
        self._corpus = corpus
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        samples: list[Any] = self._corpus.__getitems__([self._rows[index] for index in indices])
        return [{name: sample[name] for name in ("input_ids", "labels")} for sample in samples]


class _Turns(transformers.TrainerCallback):
    def __init__(self, run: Run, rest: Callable[[], None]) -> None:
        self._run, self._rest = run, rest

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._rest()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._run.losses[state.global_step] = logs["loss"]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._run.setting.rests_after(state.global_step):
            self._rest()


def transformers_trainer(
    run: Run, rest: Callable[[], None], kind: type[Any] = transformers.Trainer, **own: Any
) -> None:
    """Train with a ``kind`` of `transformers.Trainer`, its arguments as in the recipe and otherwise their defaults."""
    setting = run.setting
    recipe, _ = setting.recipe(run.folder)
    plan = make_plan(recipe, None, world_size=setting.ranks, bf16_hardware=True)
    corpus = open_corpus(run.folder / "corpus")
    fit_vocabulary(plan.model_config, recipe.model, Vocabulary.of(corpus.tokenizer))
    transformers.set_seed(recipe.training.seed)
    model = build_model(plan.model_config, recipe.model)
    loader = build_loader(
        corpus.train, micro_batch_size=setting.batch_size, rank=0, world_size=1, seed=recipe.data.seed
    )
    sampler: RankSampler = loader.batch_sampler
    samples = setting.total_steps * setting.tokens_per_step // setting.sequence_length
    rows = (sampler.order.draws(torch.arange(samples).numpy()) % len(corpus.train)).tolist()
    arguments = transformers.TrainingArguments(
        str(run.folder),
        deepspeed=plan.deepspeed,
        per_device_train_batch_size=setting.batch_size,
        gradient_accumulation_steps=setting.accumulation_steps,
        max_steps=setting.total_steps,
        max_grad_norm=recipe.training.gradient_clipping or 0.0,
        bf16=setting.precision == "bf16",
        optim="adamw_torch_fused",
        learning_rate=recipe.optimizer.lr,
        adam_beta1=recipe.optimizer.betas[0],
        adam_beta2=recipe.optimizer.betas[1],
        adam_epsilon=recipe.optimizer.eps,
        weight_decay=recipe.optimizer.weight_decay,
        lr_scheduler_type="constant",
        logging_steps=setting.log_every_steps,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = kind(
        model=model, args=arguments, train_dataset=_InOrder(corpus.train, rows), callbacks=[_Turns(run, rest)], **own
    )
    trainer.train()


presence_trainer = partial(transformers_trainer, kind=PresenceTrainer, presence={"preset": "paper"})
