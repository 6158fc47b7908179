"""Small models of the families that the estimator study compares, and the sets of their parameters."""

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

WIDTH, BLOCKS = 192, 4

_LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": 512,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 6,
    "max_position_embeddings": 1024,
    "use_cache": False,
}
_GPT2 = {
    "n_embd": WIDTH,
    "n_layer": BLOCKS,
    "n_head": 6,
    "n_positions": 1024,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}
_MT5 = {
    "d_model": WIDTH,
    "d_kv": 32,
    "d_ff": 512,
    "num_layers": BLOCKS // 2,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """A model type of transformers and the configuration of its small model; transformers ties every mT5."""

    model_type: str
    config: dict[str, Any] = field(default_factory=lambda: _LLAMA)
    encoder_decoder: bool = False

    def build(self, vocabulary: int, **changes: Any) -> Any:
        """A model with the library's own initialisation, seeded, without dropout; ``changes`` go to its config."""
        torch.manual_seed(0)
        config = AutoConfig.for_model(self.model_type, **{**self.config, "vocab_size": vocabulary, **changes})
        kind = AutoModelForSeq2SeqLM if self.encoder_decoder else AutoModelForCausalLM
        model = kind.from_config(config).train()
        if (
            self.encoder_decoder
        ):  # transformers' mT5 does not scale its tied logits: training would begin at a loss of 100
            model.get_input_embeddings().weight.data.mul_(WIDTH**-0.5)
        return model


FAMILIES = {
    "llama": Family("llama", _LLAMA | {"tie_word_embeddings": False}),
    "gpt2": Family("gpt2", _GPT2 | {"tie_word_embeddings": True}),
    "gpt_neox": Family("gpt_neox", _LLAMA | {"tie_word_embeddings": False}),
    "mt5": Family("mt5", _MT5, encoder_decoder=True),
}


def parameter_sets(model: Any) -> dict[str, set[Tensor]]:
    """Sets of trainable parameters that could stand for all of them.

    ``first blocks`` and ``last blocks`` are those of every stack: one of a decoder, two of an encoder-decoder. A
    tied embedding is the head too.
    """
    modules = dict(model.named_modules())
    stacks = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in stacks if not any(name.startswith(f"{other}.") for other in stacks)]
    norms = {p for m in modules.values() if "norm" in type(m).__name__.lower() for p in m.parameters(recurse=False)}
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight

    def named(pattern: str) -> set[Tensor]:
        return {p for name, p in model.named_parameters() if re.search(pattern, name, re.IGNORECASE)} - norms

    def blocks(index: int) -> set[Tensor]:
        return {p for name in outermost for p in modules[name][index].parameters()}

    return {
        "first blocks": blocks(0),
        "last blocks": blocks(-1),
        "embedding": {embedding},
        "head": {head},
        "neither embedding nor head": set(model.parameters()) - {embedding, head},
        "attention": named(r"attention|attn"),
        "feed-forward": named(r"mlp|DenseReluDense"),
        "norms": norms,
    }
