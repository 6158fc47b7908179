"""What the engine refuses, tried on every rank of a pool."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import set_z3_leaf_modules
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel

import presence_ds
from tests.engine.behaviour import error_of, start
from tests.engine.training import MICRO_BATCH
from tests.families.models import FAMILIES
from tests.models import VOCABULARY, tiny_model, tokens


class _Wrapped(nn.Module):
    """A tiny language model around ``inner``, which takes and returns [B, T, 8]."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(97, 8), inner, nn.Linear(8, 97)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        return (self.head(self.inner(self.embedding(input_ids))),)


class _Transposed(nn.Module):
    """Positions first: [T, B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.transpose(0, 1)).transpose(0, 1)


class _Expert(nn.Module):
    """A selection of tokens of all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, 8)
        first = flat[:, 0].argsort()[: len(flat) // 3 * 3 // 2 * 2]
        return flat.index_put((first,), self.linear(flat[first])).view_as(x)


class _Stray(nn.Module):
    """A weight used without calling its module."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.linear.weight


class _EncoderDecoder(_Wrapped):
    """Does not know how to make the decoder's inputs."""

    config = SimpleNamespace(is_encoder_decoder=True)

    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 8))

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> tuple[Tensor]:
        return super().forward(decoder_input_ids)


def encoder() -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertLMHeadModel(BertConfig(vocab_size=VOCABULARY, **sizes))


def start_in_fp16(*, supported: bool, **changes: Any) -> Any:
    accelerator = get_accelerator()
    accelerator.is_fp16_supported = lambda: supported
    try:
        return start(fp16={"enabled": True}, **changes)
    finally:
        del accelerator.is_fp16_supported


def as_one_leaf(model: nn.Module) -> nn.Module:
    set_z3_leaf_modules(model, [type(model.model.layers[0])])
    return model


def another_loss() -> None:
    engine = start(presence={"strategy": "two_pass"})
    ids = tokens(MICRO_BATCH, 9)
    engine.backward(engine(input_ids=ids, labels=ids) * 2)


def refusals() -> dict[str, str]:
    def one_step(engine: Any, **batch: Any) -> None:
        engine.backward(engine(**batch))

    ids = tokens(MICRO_BATCH, 9)
    checkpointing = tiny_model("llama", tied=False)
    checkpointing.gradient_checkpointing_enable()
    broken = tiny_model("llama", tied=False)
    broken.model.embed_tokens.weight.data.fill_(float("nan"))
    return {
        "fp16 at stage 0": error_of(lambda: start_in_fp16(supported=True, stage=0)),
        "fp16": error_of(lambda: start_in_fp16(supported=False)),
        "autocast": error_of(lambda: start(torch_autocast={"enabled": True})),
        "unmanaged accumulation": error_of(lambda: start(managed_gradient_accumulation=False)),
        "checkpointing": error_of(lambda: start(checkpointing)),
        "batch statistics": error_of(lambda: start(accumulation_steps=2, presence={"statistics": "batch"})),
        "hybrid engine": error_of(lambda: start(hybrid_engine={"enabled": True})),
        "tensor parallel": error_of(lambda: start(tensor_parallel={"autotp_size": 2})),
        "sequence parallel": error_of(lambda: start(sequence_parallel_size=2)),
        "compiled": error_of(lambda: start(torch.compile(tiny_model("llama", tied=False)))),
        "compiled later": error_of(lambda: start().compile()),
        "encoder": error_of(lambda: start(encoder(), stage=3, presence={"signal": "loss"})),
        "encoder by samples": error_of(
            lambda: start(encoder(), bf16={"enabled": True}, presence={"strategy": "two_pass"})
        ),
        "compiled under ZeRO-3": error_of(lambda: start(stage=3, presence={"strategy": "two_pass"}).compile()),
        "experts": error_of(lambda: start(FAMILIES["mixtral"].build(tied=False, dtype=torch.float32))),
        "one leaf": error_of(lambda: start(as_one_leaf(tiny_model("llama", tied=False)), stage=3)),
        "another loss": error_of(another_loss),
        "reference for another signal": error_of(lambda: start().observe_reference(input_ids=ids, labels=ids)),
        "no reference": error_of(lambda: one_step(start(presence={"signal": "alignment"}), input_ids=ids, labels=ids)),
        "wide sketches": error_of(lambda: start(presence={"alignment": True, "alignment_dim": 10**9})),
        "too wide": error_of(lambda: start(presence={"signal": "leverage", "projection_dim": 10_000})),
        "decoder": error_of(lambda: one_step(start(_EncoderDecoder()), input_ids=ids, labels=ids)),
        "field": error_of(lambda: start(presence={"projecton_dim": 3})),
        "bf16 with fp32 accumulation": error_of(
            lambda: start(
                stage=1,
                accumulation_steps=2,
                bf16={"enabled": True},
                data_types={"grad_accum_dtype": "fp32"},
            )
        ),
        "labels": error_of(lambda: one_step(start(), input_ids=ids)),
        "part of a micro-batch": error_of(lambda: one_step(start(), input_ids=ids[:2], labels=ids[:2])),
        "no finite sample": error_of(lambda: one_step(start(broken), input_ids=ids, labels=ids)),
        "positions first": error_of(lambda: start(_Wrapped(_Transposed()))),
        "selection of tokens": error_of(lambda: start(_Wrapped(_Expert()))),
        "stray weight": error_of(lambda: start(_Wrapped(_Stray()))),
        "missing file": error_of(
            lambda: presence_ds.initialize(model=tiny_model("llama", tied=False), config=Path("missing.json"))
        ),
    }
