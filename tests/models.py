"""Tiny random models of transformers, seeded, so that every process builds the same one."""

from types import SimpleNamespace
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, T5Config
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

VOCABULARY = 97
KINDS = ("llama", "gpt2")


def tiny_model(kind: str, *, tied: bool, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> PreTrainedModel:
    """A two-block model of width 32, in training mode; ``dropout`` is of GPT-2 alone."""
    torch.manual_seed(0)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
        model = LlamaForCausalLM(config).to(dtype).train()
        if dtype == torch.float64:
            widen_norms(model)
        return model
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        tie_word_embeddings=tied,
        attn_pdrop=dropout,
        embd_pdrop=dropout,
        resid_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).to(dtype).train()


def t5_config(*, tied: bool = True, layers: int = 2) -> T5Config:
    """Of the same width, without dropout."""
    return T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=layers,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=12,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        tie_word_embeddings=tied,
    )


def engine_of(model: torch.nn.Module) -> Any:
    """What trials take for an engine that runs ``model``."""

    class Engine(SimpleNamespace):
        def __call__(self, *args: Any, **batch: Any) -> Any:
            return model(*args, **batch)

    return Engine(module=model, device=torch.device("cpu"), eval=model.eval, train=model.train)


def widen_norms(model: torch.nn.Module) -> None:
    """Put torch's own RMSNorm, which stays in float64, in place of transformers', which round to float32 inside."""
    for name, module in list(model.named_modules()):
        if isinstance(module, (LlamaRMSNorm, T5LayerNorm)):
            norm = torch.nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon, dtype=torch.float64)
            model.set_submodule(name, norm)


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random token ids, int64."""
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))
