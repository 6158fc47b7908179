"""Runs on every rank of a pool: `PresenceTrainer`, and a loop written by hand over the batches that it took."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

import presence_ds
from presence_ds.errors import PresenceError
from presence_ds.hf import PresenceTrainer
from presence_ds.hf.trainer import flatten
from tests.engine.training import full_parameters
from tests.models import tiny_model, tokens

SAMPLES, LENGTH, MICRO_BATCH, ACCUMULATION = 23, 17, 2, 2  # on two ranks 5 micro-batches an epoch: steps of 2, 2 and 1
PRESENCE = {"preset": "paper", "schedule": {"switch_step": 3}, "projection_dim": 4}


class Tokens(Dataset[dict[str, Tensor]]):
    """Random samples, with ``ragged`` the last eight targets of every other one ignored, and all of every seventh."""

    def __init__(self, size: int, seed: int, ragged: bool = True) -> None:
        self.ids = tokens(size, LENGTH, seed=seed)
        self.ragged = ragged

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        labels = self.ids[index].clone()
        if self.ragged and index % 2:
            labels[LENGTH - 8 :] = -100
        if self.ragged and index % 7 == 3:
            labels[1:] = -100
        return {"input_ids": self.ids[index], "labels": labels, "source_ids": torch.tensor(index % 3)}


class Recorded(PresenceTrainer):
    """Keeps every micro-batch, whether it ends an optimizer step, and what PRESENCE found at each end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[dict[str, Tensor], bool]] = []
        self.found: list[tuple[Tensor, Tensor]] = []

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any) -> Tensor:
        self.seen.append((dict(inputs), self.accelerator.sync_gradients))
        loss = super().training_step(model, inputs, *args)
        if self.accelerator.sync_gradients:
            self.found.append((model.presence.scores.clone(), model.presence.weights.clone()))
        return loss


def settings(stage: int, **changes: Any) -> dict[str, Any]:
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0, "reduce_bucket_size": 20_000}
    zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
    } | changes


def make_trainer(
    folder: str, deepspeed: dict[str, Any] | None, kind: type[Any] = PresenceTrainer, **changes: Any
) -> Any:
    """A trainer of two epochs, its own arguments and those of `transformers.TrainingArguments` changed."""
    own = {"presence": PRESENCE} if issubclass(kind, PresenceTrainer) else {}
    own |= {name: changes.pop(name) for name in ("presence", "compute_loss_func") if name in changes}
    ragged = changes.pop("ragged", True)
    arguments = {
        "output_dir": folder,
        "deepspeed": deepspeed,
        "per_device_train_batch_size": MICRO_BATCH,
        "per_device_eval_batch_size": 3,
        "gradient_accumulation_steps": ACCUMULATION,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "adam_epsilon": 1e-3,
        "max_grad_norm": 0.2,
        "lr_scheduler_type": "linear",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,
        "use_cpu": True,
    }
    trainer = kind(
        model=tiny_model("llama", tied=True),
        args=transformers.TrainingArguments(**(arguments | changes)),
        train_dataset=Tokens(SAMPLES, seed=1, ragged=ragged),
        eval_dataset=Tokens(6, seed=2, ragged=False),
        **own,
    )
    for quiet in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(quiet)
    return trainer


@dataclass
class Run:
    """Parameters at the end; scores and weights of every optimizer step's last micro-batch; the trainer's logs."""

    parameters: list[Tensor]
    found: list[tuple[Tensor, Tensor]]
    logs: list[dict[str, Any]]


def run(trainer: Any, resume: str | None = None) -> Run:
    trainer.train(resume_from_checkpoint=resume)
    ended = Run(full_parameters(trainer.model_wrapped), getattr(trainer, "found", []), trainer.state.log_history)
    trainer.accelerator.free_memory()
    return ended


def beside_a_loop(folder: str, stage: int, strategy: str) -> dict[str, Any]:
    """The trainer, and the loop over the batches that the trainer took."""
    presence = PRESENCE | {"strategy": strategy}
    trainer = make_trainer(folder, settings(stage), Recorded, presence=presence, lr_scheduler_type="constant")
    theirs = run(trainer)

    model = tiny_model("llama", tied=True)
    config = settings(stage) | {
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "gradient_accumulation_steps": ACCUMULATION,
        "gradient_clipping": 0.2,
        "zero_allow_untested_optimizer": True,
    }
    decayed = trainer.get_decay_parameter_names(model)
    groups = [[p for name, p in model.named_parameters() if (name in decayed) == inside] for inside in (True, False)]
    kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(trainer.args)
    optimizer = kind([{"params": group, "weight_decay": 0.0} for group in groups], **options)
    engine, *_ = presence_ds.initialize(model=model, config=config, optimizer=optimizer, presence=presence)
    loop = Run([], [], [])
    for batch, last in trainer.seen:
        engine.set_gradient_accumulation_boundary(last)
        engine.backward(engine(**batch))
        engine.step()
        if last:
            loop.found.append((engine.presence.scores.clone(), engine.presence.weights.clone()))
            loop.logs.append(flatten(engine.presence.statistics) | {"grad_norm": float(engine.get_global_grad_norm())})
    loop.parameters = full_parameters(engine)
    engine.destroy()
    return {"trainer": theirs, "loop": loop, "ends": [last for _, last in trainer.seen]}


def beside_plain(folder: str, stage: int) -> dict[str, Run]:
    """`transformers.Trainer`, and ours with uniform weights, on samples with equally many targets."""
    uniform = {"signal": "uniform"}
    return {
        "plain": run(
            make_trainer(folder, settings(stage), transformers.Trainer, ragged=False, dataloader_drop_last=True)
        ),
        "uniform": run(make_trainer(folder, settings(stage, presence=uniform), presence=None, ragged=False)),
    }


def resume(folder: str, stage: int) -> dict[str, Any]:
    """A whole training, and one that goes on from the whole one's third step; evaluation and the saved model."""
    whole_trainer = make_trainer(folder, settings(stage), Recorded, save_strategy="steps", save_steps=3)
    whole_trainer.train()
    loss = whole_trainer.evaluate()["eval_loss"]
    whole_trainer.save_model(f"{folder}/saved")
    parameters = full_parameters(whole_trainer.model_wrapped)
    whole = Run(parameters, whole_trainer.found, whole_trainer.state.log_history)
    whole_trainer.accelerator.free_memory()
    dist.barrier()
    resumed = run(make_trainer(folder, settings(stage), Recorded), resume=f"{folder}/checkpoint-3")

    saved = tiny_model("llama", tied=True).eval()  # from_pretrained would partition it while ZeRO-3 is configured
    missing, unexpected = saved.load_state_dict(load_file(f"{folder}/saved/model.safetensors"), strict=False)
    assert set(missing) <= {"lm_head.weight"}  # tied
    assert not unexpected
    samples = [whole_trainer.eval_dataset[index] for index in range(6)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in ("input_ids", "labels")}
    with torch.no_grad():
        expected = saved(**batch).loss.item()
    names = [name for name, _ in whole_trainer.model.named_parameters()]
    kept = dict(saved.named_parameters())
    same = all(torch.equal(kept[name], ours) for name, ours in zip(names, parameters, strict=True))
    return {"whole": whole, "resumed": resumed, "losses": (loss, expected), "saved as trained": same}


def changed(folder: str) -> dict[str, Any]:
    """What is told and refused where training goes on from its first step with another configuration."""
    first = make_trainer(folder, settings(2), max_steps=3, save_strategy="steps", save_steps=1)
    run(first)
    dist.barrier()
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("presence_ds.hf.trainer").addHandler(handler)
    try:
        other = PRESENCE | {"schedule": {"switch_step": 2, "tau_inverse": -2.0}, "near_duplicates": 0.9}
        run(make_trainer(folder, settings(2), max_steps=3, presence=other), resume=f"{folder}/checkpoint-1")
        run(make_trainer(folder, settings(2), max_steps=3), resume=f"{folder}/checkpoint-1")
    finally:
        logging.getLogger("presence_ds.hf.trainer").removeHandler(handler)
    refused = {}
    for name, value in {"loss_normalizer": "sum", "layers": "first"}.items():
        trainer = make_trainer(folder, settings(2), max_steps=3, presence=PRESENCE | {name: value})
        try:
            trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-1")
        except PresenceError as error:
            refused[name] = str(error)
        trainer.accelerator.free_memory()
    return {"told": told, "refused": refused}


def refusals(folder: str) -> dict[str, str]:
    """What making a trainer, or training, says for each case."""

    class OwnLoss(PresenceTrainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(*args, **kwargs)

    cases: dict[str, dict[str, Any]] = {
        "no DeepSpeed": {"deepspeed": None},
        "loss function": {"compute_loss_func": lambda *_, **__: None},
        "own compute_loss": {"kind": OwnLoss},
        "label smoothing": {"label_smoothing_factor": 0.1},
        "compile": {"torch_compile": True},
        "DeepSpeed setting": {"deepspeed": settings(2, hybrid_engine={"enabled": True})},
        "field": {"presence": {"projecton_dim": 3}},
        "value": {"presence": PRESENCE | {"projection_dim": 0}},
        "beyond the end": {"presence": {"preset": "paper", "schedule": {"switch_step": 7}}},
        "checkpointing": {"gradient_checkpointing": True},
    }
    messages = {}
    for case, changes in cases.items():
        trainer = None
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # left by the one before
        try:
            trainer = make_trainer(folder, **({"deepspeed": settings(2)} | changes))
            trainer.train()
            messages[case] = "accepted"
        except PresenceError as error:
            messages[case] = f"{type(error).__name__}: {error}"
        if trainer is not None:
            trainer.accelerator.free_memory()
    return messages
