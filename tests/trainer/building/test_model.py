from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

from presence_ds.data import TokenizerConfig
from presence_ds.data.tokenizer.tokenizer import train_tokenizer
from presence_ds.engine.scorer import Scorer
from presence_ds.errors import ConfigError
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from presence_ds.trainer.building.architecture import load_model_config
from presence_ds.trainer.building.construction import build_model, check_attention
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary

SMALL = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TokenizerConfig(vocab_size=270), ["some words to learn from"] * 20)


def test_vocabulary_comes_from_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    model = ModelConfig(config=dict(SMALL))
    config = load_model_config(model)
    fit_vocabulary(config, model, Vocabulary.of(tokenizer))
    assert config.vocab_size == 320  # 270 rounded up to a multiple of 64
    assert config.eos_token_id == tokenizer.eos_token_id
    assert build_model(config, model).get_input_embeddings().weight.shape == (320, 16)


def test_tokenizer_larger_than_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    model = ModelConfig(config={**SMALL, "vocab_size": 200})
    with pytest.raises(ConfigError, match="model vocab_size is 200, and the tokenizer's largest id is 269"):
        fit_vocabulary(load_model_config(model), model, Vocabulary.of(tokenizer))


def test_local_checkpoint_is_read_or_started_from_scratch(tmp_path: Path) -> None:
    saved = AutoModelForCausalLM.from_config(GPT2Config(**{**SMALL, "vocab_size": 40}))
    saved.save_pretrained(tmp_path)
    for from_scratch in (False, True):
        model = ModelConfig(path=str(tmp_path), from_scratch=from_scratch)
        built = build_model(load_model_config(model), model)
        same = torch.equal(built.transformer.wte.weight, saved.transformer.wte.weight)
        assert same != from_scratch
        assert built.dtype == torch.float32


def test_attention_implementation_is_used() -> None:
    for attention in ("eager", "sdpa"):
        model = ModelConfig(config={**SMALL, "vocab_size": 40}, attention=attention)
        assert build_model(load_model_config(model), model).config._attn_implementation == attention


@pytest.mark.parametrize(
    ("attention", "device", "precision", "message"),
    [
        ("flash_attention_2", "cuda", "fp32", "computes in bf16 or fp16, and training.precision comes to fp32"),
        ("flash_attention_2", "cuda", "bf16", "the package for FlashAttention2 doesn't seem to be installed"),
        ("someone/kernel", "cuda", "bf16", 'model.attention is "someone/kernel": '),
        ("flash_atention_2", None, "bf16", "it must be one of eager, "),
    ],
)
def test_attention_that_is_not_available_is_refused(
    attention: str, device: str | None, precision: str, message: str
) -> None:
    model = ModelConfig(config={**SMALL, "vocab_size": 40}, attention=attention)
    with pytest.raises(ConfigError, match=message) as caught:
        check_attention(load_model_config(model), model, device=device, precision=precision)
    assert "\n" not in str(caught.value)
    if device is None:
        model.attention = "flash_attention_2"
        check_attention(load_model_config(model), model, device=None, precision=precision)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3"])
def test_eager_and_sdpa_give_the_same_self_influence(model_type: str) -> None:
    ids = torch.randint(97, (4, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 15:] = mask[2, :4] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[2, 4] = -100  # predicted where nothing is attended to, which the two do not agree on
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
    if model_type != "gpt2":
        sizes |= {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}
    found = {}
    for attention in ("eager", "sdpa"):
        model = ModelConfig(config={"model_type": model_type, **sizes}, attention=attention)
        torch.manual_seed(0)
        built = build_model(load_model_config(model), model).eval()  # no dropout
        scorer = Scorer(built, SelfInfluence(select_parameters(built, "all"), None, 0), SampleLoss())
        found[attention] = scorer.score(built.forward, (), dict(batch))
    torch.testing.assert_close(found["sdpa"].scores, found["eager"].scores, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(found["sdpa"].losses, found["eager"].losses, rtol=1e-5, atol=0.0)
    assert (found["sdpa"].scores > 0).all()
    assert found["sdpa"].scores.unique().numel() == 4
