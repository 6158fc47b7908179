"""Rows of several documents, models that keep them apart, and the losses and gradients of one document at a time."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

import presence_ds
from presence_ds.errors import ConfigError
from tests.engine.training import deepspeed_config, full_parameters
from tests.families.models import FAMILIES
from tests.families.models import VOCABULARY as SMALLEST
from tests.models import t5_config, tiny_model, tokens, widen_norms

KINDS = ("llama", "gpt2", "t5")
LENGTHS = [[4, 1, 7], [5, 3, 2], [12]]  # of the documents of three rows, the first of which is without a target
LENGTH = 13
DECODER_LENGTHS = [[2, 3, 3], [4, 1, 2], [6]]
DECODER_LENGTH = 9


class PackedT5(T5ForConditionalGeneration):
    """T5 with a mask of its own for each kind of attention."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cross_attention_mask: Tensor | None = None,
        use_cache: bool = False,
        **more: Any,
    ) -> Any:
        encoded = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        output = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoded,
            encoder_attention_mask=cross_attention_mask,
            use_cache=False,
        )[0]
        return (self.lm_head(output * self.config.d_model**-0.5 if self.config.scale_decoder_outputs else output),)


def tiny_t5(*, tied: bool, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    model = PackedT5(t5_config(tied=tied)).to(dtype).train()
    if dtype == torch.float64:
        widen_norms(model)
    return model


class Gate(nn.Module):
    """What only the general rule can attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.slope, self.offset = (nn.Parameter(torch.randn(width, dtype=torch.float64)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x * self.slope + self.offset)


def build(kind: str, *, tied: bool, dtype: torch.dtype = torch.float64) -> Any:
    if kind == "gated":
        model: Any = tiny_model("llama", tied=tied, dtype=dtype)
        model.model.norm = nn.Sequential(model.model.norm, Gate(32))
        return model
    if kind == "qwen3":  # which normalises by head
        return FAMILIES["qwen3"].build(tied=tied, dtype=dtype)
    return tiny_t5(tied=tied, dtype=dtype) if kind == "t5" else tiny_model(kind, tied=tied, dtype=dtype)


@dataclass
class Packed:
    """Rows of documents.

    Attributes:
        batch: what the engine takes.
        alone: the batch of each document by itself, in order.
        rows: the row of each document.
    """

    batch: dict[str, Tensor]
    alone: list[dict[str, Tensor]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


def _row_of(parts: list[Tensor], length: int, filler: int) -> Tensor:
    row = torch.cat(parts)
    return F.pad(row, (0, length - len(row)), value=filler)


def _indices(lengths: list[int], length: int) -> Tensor:
    return _row_of([torch.full((size,), number) for number, size in enumerate(lengths)], length, -1)


def mask_of(queries: Tensor, keys: Tensor, *, causal: bool, dtype: torch.dtype) -> Tensor:
    """Additive [B, 1, Q, K]: 0 where both are of one document."""
    allowed = queries.unsqueeze(2) == keys.unsqueeze(1)
    if causal:
        allowed = allowed.tril()
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min).unsqueeze(1)


def pack(kind: str, lengths: list[list[int]] = LENGTHS, seed: int = 0, dtype: torch.dtype = torch.float64) -> Packed:
    """Random documents of ``lengths`` in a batch with padding."""
    if kind == "t5":
        return _pack_t5(seed, dtype)
    found = Packed({})
    ids, positions = [], []
    for number, row in enumerate(lengths):
        seeds = [seed * 1000 + number * 10 + at for at in range(len(row))]
        documents = [tokens(1, size, seed=own) % SMALLEST for size, own in zip(row, seeds, strict=True)]
        found.alone += [{"input_ids": document, "labels": document} for document in documents]
        found.rows += [number] * len(row)
        ids.append(_row_of([document[0] for document in documents], LENGTH, 0))
        rest = LENGTH - sum(row)
        positions.append(torch.cat([torch.arange(size) for size in (*row, rest)]))
    indices = torch.stack([_indices(row, LENGTH) for row in lengths])
    input_ids = torch.stack(ids)
    found.batch = {
        "input_ids": input_ids,
        "labels": input_ids.masked_fill(indices < 0, -100),  # first tokens are not left out: the engine does that
        "position_ids": torch.stack(positions),
        "document_indices": indices,
    }
    return found


def _pack_t5(seed: int, dtype: torch.dtype) -> Packed:
    found = Packed({})
    rows: dict[str, list[Tensor]] = {name: [] for name in ("input_ids", "decoder_input_ids", "labels")}
    for number, (row, decoder_row) in enumerate(zip(LENGTHS, DECODER_LENGTHS, strict=True)):
        documents = []
        for at, (size, targets) in enumerate(zip(row, decoder_row, strict=True)):
            ids = tokens(1, size, seed=seed * 1000 + number * 10 + at)
            labels = tokens(1, targets, seed=seed * 1000 + number * 10 + at + 5)
            if (number, at) == (0, 1):
                labels = torch.full_like(labels, -100)
            decoder_ids = F.pad(labels.clamp(min=0)[:, :-1], (1, 0), value=0)
            documents.append({"input_ids": ids, "decoder_input_ids": decoder_ids, "labels": labels})
        found.alone += documents
        found.rows += [number] * len(row)
        for name, parts in rows.items():
            length, filler = (LENGTH, 0) if name == "input_ids" else (DECODER_LENGTH, -100 if name == "labels" else 0)
            parts.append(_row_of([document[name][0] for document in documents], length, filler))
    encoder = torch.stack([_indices(row, LENGTH) for row in LENGTHS])
    decoder = torch.stack([_indices(row, DECODER_LENGTH) for row in DECODER_LENGTHS])
    found.batch = {name: torch.stack(parts) for name, parts in rows.items()} | {
        "document_indices": encoder,
        "decoder_document_indices": decoder,
        "attention_mask": mask_of(encoder, encoder, causal=False, dtype=dtype),
        "decoder_attention_mask": mask_of(decoder, decoder, causal=True, dtype=dtype),
        "cross_attention_mask": mask_of(decoder, encoder, causal=False, dtype=dtype),
    }
    return found


def one_at_a_time(model: nn.Module, packed: Packed, kind: str) -> tuple[Tensor, list[list[Tensor]]]:
    """Losses [P] (0 without targets), and the gradient of every parameter of each document alone."""
    losses, gradients = [], []
    parameters = list(model.parameters())
    for document in packed.alone:
        inputs = {name: value for name, value in document.items() if name != "labels"}
        output = model(**inputs, use_cache=False)
        logits, labels = (output[0] if isinstance(output, tuple) else output.logits)[0], document["labels"][0]
        if kind != "t5":
            logits, labels = logits[:-1], labels[1:]
        kept = labels != -100
        if not kept.any():
            losses.append(logits.new_zeros(()))
            gradients.append([torch.zeros_like(parameter) for parameter in parameters])
            continue
        loss = F.cross_entropy(logits[kept], labels[kept])
        losses.append(loss.detach())
        gradients.append(list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)))
    return torch.stack(losses), gradients


@dataclass(frozen=True)
class Step:
    """An optimizer step on documents, of which ranks and micro-steps have different numbers."""

    kind: str = "llama"
    strategy: str = "one_pass"
    accumulation_steps: int = 1
    stage: int = 2
    presence: dict[str, Any] = field(default_factory=dict)
    poison: bool = False
    checkpointing: bool = False


SIZES = [LENGTHS, [[1, 1, 2, 3, 2, 4], [13], [6, 6]], [[12, 1], [2, 2, 2], [9]], [[3, 10], [7, 1], [1, 11]]]
POISON = 5  # a token whose embedding is NaN
LEARNING_RATE = 0.5


def compare(step: Step) -> dict[str, float]:
    """Take the step and compute it one document at a time; the largest differences seen."""
    ranks, rank, accumulation = dist.get_world_size(), dist.get_rank(), step.accumulation_steps
    model, reference = (build(step.kind, tied=False, dtype=torch.float32) for _ in range(2))
    if step.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})

    def packed_for(number: int, g: int) -> Packed:
        return pack(step.kind, SIZES[(number + 2 * g) % 4], seed=1 + number + ranks * g, dtype=torch.float32)

    packs = [[packed_for(number, g) for g in range(accumulation)] for number in range(ranks)]
    dead: list[int] = []
    if step.poison:
        dead = _poison(packs, model, reference)
    engine, *_ = presence_ds.initialize(
        model=model,
        config=deepspeed_config(step.stage, accumulation),
        presence={"preset": "paper", "schedule": {"kind": "constant"}, "estimator": "exact", "granularity": "document"}
        | {"strategy": step.strategy}
        | step.presence,
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
    )
    for packed in packs[rank]:
        sources = torch.arange(len(LENGTHS))
        engine.backward(engine(**packed.batch, source_ids=sources, use_cache=False))
        engine.step()
    presence = engine.presence

    losses, gradients = [], []
    for packed in (packed for of_rank in packs for packed in of_rank):
        found = one_at_a_time(reference, packed, step.kind)
        losses.append(found[0])
        gradients += found[1]
    flat = torch.stack([torch.cat([part.flatten() for part in one]) for one in gradients]).double()
    loss = torch.cat(losses).double()
    counted = loss.isfinite() & (loss > 0)
    counted[dead] = False
    flat[~counted] = 0.0
    score = flat.square().sum(1)
    values = loss if step.presence.get("signal") == "loss" else score
    sizes = [[len(packed.alone) for packed in of_rank] for of_rank in packs]
    basis = counted.clone()
    if step.strategy == "one_pass" and accumulation > 1:  # figures of the first micro-step of all ranks
        first = [torch.arange(sum(of_rank)) < of_rank[0] for of_rank in sizes]
        basis &= torch.cat(first)
    mean, deviation = values[basis].mean(), values[basis].std(correction=0)
    weights = torch.softmax(((values - mean) / deviation).masked_fill(~counted, -torch.inf), 0)
    total = flat.sum(0)
    alignments = ((flat @ total - score) / (counted.sum() - 1)).masked_fill(~counted, 0.0)
    update = (weights @ flat).float()

    before = sum(map(sum, sizes[:rank]))
    own = slice(before, before + sum(sizes[rank]))
    worst = {"weights": (presence.weights - weights[own]).abs().max().item()}
    moved = torch.cat([value.flatten() for value in full_parameters(engine)])
    start = torch.cat([parameter.detach().flatten() for parameter in reference.parameters()])
    if step.poison:
        moved, start = moved.nan_to_num(), start.nan_to_num()
    worst["update"] = ((start - moved) / LEARNING_RATE - update).abs().max().item() / update.abs().max().item()
    if presence.alignments is not None:
        scale = alignments.abs().max()
        worst["alignments"] = ((presence.alignments - alignments[own]).abs().max() / scale).item()
    assert presence.statistics["samples"] == len(loss)
    assert presence.statistics["nonfinite_samples"] == len(dead)
    rows = torch.cat([torch.tensor(packed.rows) for of_rank in packs for packed in of_rank])
    by_source = presence.statistics["sources"]
    assert [by_source[number]["samples"] for number in by_source] == torch.bincount(rows).tolist()
    means = {number: (weights[rows == number].mean() * len(rows)).item() for number in by_source}
    worst["sources"] = max(abs(by_source[number]["mean_weight"] - mean) for number, mean in means.items())
    engine.destroy()
    return worst


def _poison(packs: list[list[Packed]], *models: Any) -> list[int]:
    """Put a token into one document that makes its loss NaN, and with it those of its row; which ones these are."""
    for packed in (packed for of_rank in packs for packed in of_rank):
        packed.batch["input_ids"][packed.batch["input_ids"] == POISON] = POISON + 1
        packed.batch["labels"][packed.batch["labels"] == POISON] = POISON + 1
        for document in packed.alone:
            for name in ("input_ids", "labels"):
                document[name] = document[name].masked_fill(document[name] == POISON, POISON + 1)
    packed = packs[0][0]
    packed.batch["input_ids"][1, 1] = POISON
    for model in models:
        model.get_input_embeddings().weight.data[POISON] = torch.nan
    return [number for number, row in enumerate(packed.rows) if row == 1]


def refusals() -> dict[str, str]:
    """What the engine says of batches that granularity document cannot be had of, after one that tells nothing."""
    model = build("gpt2", tied=True, dtype=torch.float32)
    engine, *_ = presence_ds.initialize(
        model=model,
        config=deepspeed_config(2, 1),
        presence={"granularity": "document"},
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
    )
    batch = pack("gpt2").batch
    engine(**batch | {"document_indices": batch["document_indices"].clamp(max=0)})  # a document in every row
    together = {name: value for name, value in batch.items() if name != "position_ids"}
    missing = {name: value for name, value in batch.items() if name != "document_indices"}
    numbers = batch | {"document_indices": batch["document_indices"].masked_fill(batch["document_indices"] == 2, 70)}

    def said(given: dict[str, Tensor]) -> str:
        with pytest.raises(ConfigError) as caught:
            engine(**given)
        return str(caught.value)

    found = {"together": said(together), "missing": said(missing), "numbers": said(numbers)}
    engine.destroy()
    return found
