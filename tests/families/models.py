"""Tiny random models of many families of transformers, in evaluation-like training mode: no dropout."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

VOCABULARY, WIDTH = 53, 16

_LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}
_NEOX = {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}
_T5 = {
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "dropout_rate": 0.0,
}
_BART = {
    "d_model": WIDTH,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "dropout": 0.0,
}
_EXPERTS = _LLAMA | {"num_experts_per_tok": 2, "experts_implementation": "eager"}


@dataclass(frozen=True)
class Family:
    """A model type of transformers and the configuration of its tiny model."""

    model_type: str
    config: dict[str, Any] = field(default_factory=lambda: _LLAMA)
    tying: tuple[bool, ...] = (False, True)  # ways the embedding and the head can be tied
    encoder_decoder: bool = False
    has_experts: bool = False

    def build(self, *, tied: bool, seed: int = 0, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
        """A model whose every parameter is random, so that none of its gradients is zero by chance."""
        torch.manual_seed(seed)
        special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0}
        config = AutoConfig.for_model(
            self.model_type, vocab_size=VOCABULARY, tie_word_embeddings=tied, **special, **self.config
        )
        kind = AutoModelForSeq2SeqLM if self.encoder_decoder else AutoModelForCausalLM
        model = kind.from_config(config).to(dtype).train()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
        return model


FAMILIES = {
    "llama": Family("llama"),
    "llama_biased": Family("llama", _LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "mistral": Family("mistral", _LLAMA | {"sliding_window": 4}),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3", _LLAMA | {"head_dim": 8}),
    "gemma": Family("gemma", _LLAMA | {"head_dim": 8}),
    "gemma2": Family("gemma2", _LLAMA | {"head_dim": 8}),
    "gemma3": Family("gemma3_text", _LLAMA | {"head_dim": 8, "sliding_window": 4}),
    "gpt_neox": Family("gpt_neox", _NEOX),
    "gpt2": Family(
        "gpt2",
        {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 32}
        | dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0),
    ),
    "opt": Family("opt", _NEOX | {"ffn_dim": 24, "word_embed_proj_dim": 8, "dropout": 0.0}),
    "phi": Family("phi", _LLAMA | {"partial_rotary_factor": 0.5}),
    "phi3": Family("phi3"),
    "olmo": Family("olmo"),
    "olmo2": Family("olmo2"),
    "falcon": Family("falcon", _NEOX | {"attention_dropout": 0.0, "hidden_dropout": 0.0}),
    "stablelm": Family("stablelm", _LLAMA | {"qk_layernorm": True}),
    "cohere": Family("cohere", _LLAMA | {"use_qk_norm": True}),
    "bloom": Family("bloom", {"hidden_size": WIDTH, "n_layer": 2, "n_head": 2}),
    "t5": Family("t5", _T5, encoder_decoder=True),
    "t5_gated": Family("t5", _T5 | {"feed_forward_proj": "gated-gelu"}, encoder_decoder=True),
    "mt5": Family("mt5", _T5 | {"feed_forward_proj": "gated-gelu"}, encoder_decoder=True),
    "umt5": Family("umt5", _T5, encoder_decoder=True),
    "bart": Family("bart", _BART, tying=(True,), encoder_decoder=True),
    "mixtral": Family("mixtral", _EXPERTS | {"num_local_experts": 4}, has_experts=True),
    "qwen3_moe": Family(
        "qwen3_moe", _EXPERTS | {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 8}, has_experts=True
    ),
    "olmoe": Family("olmoe", _EXPERTS | {"num_experts": 4}, has_experts=True),
    "gpt_oss": Family("gpt_oss", _EXPERTS | {"head_dim": 8, "num_local_experts": 4}, has_experts=True),
}
