"""Runs on every rank of a pool: models that add terms of their own to the cross-entropy of their logits."""

from types import SimpleNamespace
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import presence_ds
from tests.engine.behaviour import error_of
from tests.engine.training import deepspeed_config, full_parameters, optimizer_for
from tests.families.models import _EXPERTS, _T5, VOCABULARY
from tests.models import tiny_model

MICRO_BATCH, LENGTH, STEPS = 2, 8, 2
UNIFORM = {"preset": "paper", "signal": "uniform", "strategy": "two_pass", "schedule": {"kind": "constant"}}


class Squared(nn.Module):
    """A model that computes its loss itself, with the square of the logits' normaliser and one more term in it."""

    config = SimpleNamespace(is_encoder_decoder=False)

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
        logits, loss = self.head(self.embedding(input_ids).cumsum(1)), None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            loss = loss + 0.05 * logits.logsumexp(-1).square().mean() + 0.3 * self.embedding.weight.square().mean()
        return SimpleNamespace(logits=logits, loss=loss)


class Shown(Squared):
    """Gives its term, and no loss that would tell how much it counts."""

    def forward(self, input_ids: Tensor) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(logits=super().forward(input_ids).logits, aux_loss=self.head.weight.square().mean())


_ROUTERS = {"output_router_logits": True, "router_aux_loss_coef": 0.5}
KINDS: dict[str, dict[str, Any]] = {
    "mixtral": _EXPERTS | _ROUTERS | {"num_local_experts": 4},
    "olmoe": _EXPERTS | _ROUTERS | {"num_experts": 4},
    "gpt_oss": _EXPERTS | _ROUTERS | {"head_dim": 8, "num_local_experts": 4},
    "switch_transformers": _T5
    | {"num_experts": 4, "output_router_logits": True, "router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.2}
    | {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "router_jitter_noise": 0.0},
}


def build(kind: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    if kind == "squared":
        return Squared()
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, **special, **(KINDS[kind] | changes))
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return auto.from_config(config).train()


def batches(accumulation_steps: int, **more: Any) -> list[list[dict[str, Tensor]]]:
    """Micro-batches of this rank by step: every sample has the same number of targets."""
    generator, rank = torch.Generator().manual_seed(5), dist.get_rank()
    ids = torch.randint(
        2, VOCABULARY, (STEPS, accumulation_steps, dist.get_world_size(), MICRO_BATCH, LENGTH), generator=generator
    )
    return [[{"input_ids": micro[rank], "labels": micro[rank]} | more for micro in step] for step in ids]


def trained(model: nn.Module, stage: int, accumulation_steps: int, presence: dict[str, Any] | None, **more: Any) -> Any:
    """The engine after `STEPS` steps, plain DeepSpeed's on the model's own loss without ``presence``.

    ``more`` is given to the model in every batch.
    """
    optimizer = optimizer_for("sgd", model.parameters())
    config = deepspeed_config(stage, accumulation_steps, train_micro_batch_size_per_gpu=MICRO_BATCH)
    if presence is None:
        engine, *_ = deepspeed.initialize(model=model, config=config, optimizer=optimizer)
    else:
        engine, *_ = presence_ds.initialize(model=model, config=config, optimizer=optimizer, presence=presence)
    for step in batches(accumulation_steps, **more):
        for batch in step:
            output = engine(**batch)
            engine.backward(output if isinstance(output, Tensor) else output.loss)
            engine.step()
    return engine


def beside_plain(kind: str, stage: int, accumulation_steps: int, presence: dict[str, Any]) -> dict[str, float]:
    """Largest difference of a parameter between uniform weights and plain training, and what the terms did to it."""
    asked = {"output_router_logits": True} if kind == "switch_transformers" else {}  # its forward asks no configuration
    plain = full_parameters(trained(build(kind), stage, accumulation_steps, None, **asked))
    engine = trained(build(kind), stage, accumulation_steps, UNIFORM | presence)
    ours = full_parameters(engine)
    found = {
        "difference": max((a - b).abs().max().item() for a, b in zip(ours, plain, strict=True)),
        "movement": max((a - b).abs().max().item() for a, b in zip(ours, build(kind).parameters(), strict=True)),
        "auxiliary_loss": engine.presence.statistics["auxiliary_loss"],
        "loss": engine.presence.statistics["loss"],
    }
    engine.eval()
    with torch.no_grad():
        batch = batches(accumulation_steps, **asked)[0][0]
        output = engine(**batch)
        found["evaluated"] = output.loss.item()
    if kind != "squared":
        without = trained(build(kind, output_router_logits=False), stage, accumulation_steps, UNIFORM | presence)
        assert "auxiliary_loss" not in without.presence.statistics
        others = full_parameters(without)
        found["terms"] = max((a - b).abs().max().item() for a, b in zip(ours, others, strict=True))
    return found


def weighted(stage: int) -> dict[str, float]:
    """A step by weights: what the terms add to it is their mean gradient over ranks and micro-batches, unweighted."""
    presence = UNIFORM | {"signal": "self_influence", "estimator": "exact"}
    ends, weights, terms = [], [], []
    for router_aux_loss_coef in (0.5, 0.0):
        model = build("mixtral", router_aux_loss_coef=router_aux_loss_coef)
        config = deepspeed_config(stage, 2, train_micro_batch_size_per_gpu=MICRO_BATCH)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        engine, *_ = presence_ds.initialize(model=model, config=config, optimizer=optimizer, presence=presence)
        for batch in batches(2)[0]:
            engine.backward(engine(**batch))
            engine.step()
        ends.append(full_parameters(engine))
        weights.append(engine.presence.weights)
        terms.append(engine.presence.statistics["auxiliary_loss"])
    model = build("mixtral")
    auxiliary = torch.stack([0.5 * model(input_ids=batch["input_ids"]).aux_loss for batch in batches(2)[0]]).mean()
    expected = torch.autograd.grad(auxiliary, list(model.parameters()), allow_unused=True, materialize_grads=True)
    mean = auxiliary.detach().clone()
    for value in (*expected, mean):
        dist.all_reduce(value)
    ranks = dist.get_world_size()
    return {
        "weights": (weights[0] - weights[1]).abs().max().item(),
        "spread": weights[0].std().item(),
        "update": max(
            (0.5 * gradient / ranks - (without - with_terms)).abs().max().item()
            for with_terms, without, gradient in zip(*ends, expected, strict=True)
        ),
        "size": max((a - b).abs().max().item() for a, b in zip(*ends, strict=True)),
        "reported": terms[0] - mean.item() / ranks,
        "without": terms[1],
    }


def smoothed(logits: Tensor, labels: Tensor, vocab_size: int, **kwargs: Any) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=0.1)


def refusals() -> dict[str, str]:
    def start(model: nn.Module, **presence: Any) -> Any:
        config = deepspeed_config(2, 1, train_micro_batch_size_per_gpu=MICRO_BATCH)
        optimizer = optimizer_for("sgd", model.parameters())
        presence = {"preset": "paper", "schedule": {"kind": "constant"}} | presence
        return presence_ds.initialize(model=model, config=config, optimizer=optimizer, presence=presence)[0]

    def asked_for_later() -> None:
        engine = start(build("mixtral", output_router_logits=False), strategy="two_pass", signal="loss")
        engine.module.config.output_router_logits = True
        engine(**batches(1)[0][0])

    batch = batches(1, output_router_logits=True)[0][0]
    smooth = tiny_model("llama", tied=False)
    smooth.loss_function = smoothed
    return {
        "one_pass": error_of(lambda: start(Squared())),
        "label smoothing": error_of(lambda: start(smooth)),
        "no loss": error_of(lambda: start(Shown(), signal="loss")),
        "changed later": error_of(asked_for_later),
        "batch in one pass": error_of(lambda: start(tiny_model("llama", tied=False))(**batch)),
    }
