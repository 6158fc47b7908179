from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

from presence_ds.data import TokenizerConfig
from presence_ds.data.tokenizer import train_tokenizer
from presence_ds.errors import ConfigError
from presence_ds.trainer.model import ModelConfig, build_model, fit_vocabulary, load_model_config

SMALL = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TokenizerConfig(vocab_size=270), ["some words to learn from"] * 20)


def test_vocabulary_comes_from_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    model = ModelConfig(config=dict(SMALL))
    config = load_model_config(model)
    fit_vocabulary(config, model, tokenizer)
    assert config.vocab_size == 320  # 270 rounded up to a multiple of 64
    assert config.eos_token_id == tokenizer.eos_token_id
    assert build_model(config, model).get_input_embeddings().weight.shape == (320, 16)


def test_tokenizer_larger_than_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    model = ModelConfig(config={**SMALL, "vocab_size": 200})
    with pytest.raises(ConfigError, match="model vocab_size is 200, smaller than the tokenizer's 270 tokens"):
        fit_vocabulary(load_model_config(model), model, tokenizer)


def test_local_checkpoint_is_read_or_started_from_scratch(tmp_path: Path) -> None:
    saved = AutoModelForCausalLM.from_config(GPT2Config(**{**SMALL, "vocab_size": 40}))
    saved.save_pretrained(tmp_path)
    for from_scratch in (False, True):
        model = ModelConfig(path=str(tmp_path), from_scratch=from_scratch)
        built = build_model(load_model_config(model), model)
        same = torch.equal(built.transformer.wte.weight, saved.transformer.wte.weight)
        assert same != from_scratch
        assert built.dtype == torch.float32


def test_attention_implementation_is_used_or_refused() -> None:
    model = ModelConfig(config={**SMALL, "vocab_size": 40}, attention="eager")
    assert build_model(load_model_config(model), model).config._attn_implementation == "eager"
    model.attention = "no_such_attention"
    with pytest.raises(ConfigError, match="model: "):
        build_model(load_model_config(model), model)
