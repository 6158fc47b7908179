"""A model's vocabulary fits its tokenizer, whatever ids that has, and every token that stands in text is trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from presence_ds.data import Lengths
from presence_ds.errors import ConfigError
from presence_ds.trainer.building.architecture import load_model_config, text_config
from presence_ds.trainer.building.construction import build_model, try_to_build
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.building.positions import check_positions, check_sequence_length
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = {**SIZES, "model_type": "llama", "num_key_value_heads": 1, "max_position_embeddings": 32}
OPT = {"model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
BART = {"model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24}
BART |= {"decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
TEXT = {**SIZES, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32}
VISION = {**SIZES, "image_size": 16, "patch_size": 8}
GEMMA3 = {"model_type": "gemma3", "text_config": TEXT, "vision_config": VISION, "mm_tokens_per_image": 4}
LLAMA4 = {"model_type": "llama4", "text_config": {**TEXT, "num_local_experts": 2, "intermediate_size_mlp": 32}}
QWEN = {"layer_types": ["full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8}
QWEN35 = {
    "model_type": "qwen3_5",
    "text_config": {**TEXT, **QWEN, "linear_num_key_heads": 2, "linear_num_value_heads": 2},
}


def fitted(config: dict[str, Any], vocabulary: Vocabulary) -> tuple[Any, ModelConfig]:
    model = ModelConfig(config=config)
    found = load_model_config(model)
    fit_vocabulary(found, model, vocabulary)
    return found, model


def gradient_of(model: PreTrainedModel, token: int) -> torch.Tensor:
    """Of the row of ``token`` in the input embedding, which stands twice in the text."""
    ids = torch.tensor([[5, token, 7, 8, token, 9, 10, 3]])
    model.eval()(input_ids=ids, labels=ids).loss.backward()
    return model.get_input_embeddings().weight.grad[token]


@pytest.mark.parametrize("config", [LLAMA, OPT, GEMMA3, BART], ids=lambda config: config["model_type"])
@pytest.mark.parametrize("role", ["eos", "unk"])
def test_padding_that_stands_in_text_is_trained(config: dict[str, Any], role: str, tmp_path: Path) -> None:
    """In random weights and in those at a path, where the configuration goes on naming it."""
    eos, padding = (2, 2) if role == "eos" else (0, 4)
    found, model = fitted(config, Vocabulary(100, 1, eos, padding))
    assert text_config(found).pad_token_id == padding
    built = build_model(found, model)
    row = built.get_input_embeddings().weight.detach()[padding]
    assert 0.2 < row.std() / built.get_input_embeddings().weight.std() < 5
    assert gradient_of(built, padding).norm() > 0
    built.save_pretrained(tmp_path)
    loaded = ModelConfig(path=str(tmp_path))
    again = load_model_config(loaded)
    fit_vocabulary(again, loaded, Vocabulary(100, 1, eos, padding))
    model_again = build_model(again, loaded)
    assert torch.equal(model_again.get_input_embeddings().weight.detach()[padding], row)
    assert gradient_of(model_again, padding).norm() > 0
    assert json.loads((tmp_path / "config.json").read_text()).get("pad_token_id", padding) == padding


@pytest.mark.parametrize(("written", "becomes"), [(-1, 3), (100, 3), (None, 3), (2, 2)])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_padding_of_a_checkpoint(written: int | None, becomes: int, from_scratch: bool, tmp_path: Path) -> None:
    """One outside of the vocabulary, which older configurations have, or none becomes the tokenizer's."""
    fields = {name: value for name, value in LLAMA.items() if name != "model_type"}
    AutoModelForCausalLM.from_config(LlamaConfig(**fields, vocab_size=100)).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**saved, "pad_token_id": written}))
    model = ModelConfig(path=str(tmp_path), from_scratch=from_scratch)
    config = load_model_config(model)
    fit_vocabulary(config, model, Vocabulary(100, 1, 2, 3))
    assert try_to_build(config, model) is not None
    built = build_model(config, model)
    assert built.config.pad_token_id == becomes
    assert all(gradient_of(built, token).norm() > 0 for token in (2, 3, 99))


@pytest.mark.parametrize("config", [LLAMA, GEMMA3], ids=lambda config: config["model_type"])
def test_largest_id_counts(config: dict[str, Any]) -> None:
    found, model = fitted(config, Vocabulary(1361, None, 1, None))
    assert build_model(found, model).get_input_embeddings().num_embeddings == 1408
    text = config.get("text_config", config)
    small = (
        {**config, "text_config": {**text, "vocab_size": 1360}} if text is not config else {**text, "vocab_size": 1360}
    )
    with pytest.raises(ConfigError, match=r"vocab_size is 1360, and the tokenizer's largest id is 1360: .* least 1361"):
        fitted(small, Vocabulary(1361, None, 1, None))


@pytest.mark.parametrize("config", [GEMMA3, LLAMA4, QWEN35], ids=lambda config: config["model_type"])
def test_text_section_of_a_configuration(config: dict[str, Any]) -> None:
    """Sizes are read and filled in there, and text alone trains the model, or it is refused."""
    found, model = fitted(config, Vocabulary(90, 1, 2, 3))
    text = text_config(found)
    assert text is not found
    assert (text.vocab_size, text.bos_token_id, text.eos_token_id, text.pad_token_id) == (128, 1, 2, 3)
    check_sequence_length(found, 32, "data.sequence_length")
    with pytest.raises(ConfigError, match="it must be at most 32"):
        check_sequence_length(found, 33, "data.sequence_length")
    empty = try_to_build(found, model)
    assert empty is not None
    check_positions(empty, found, Lengths(32, 32, 32), Vocabulary(90, 1, 2, 3), "data.sequence_length")
    built = build_model(found, model)
    assert gradient_of(built, 3).norm() > 0
    assert text_config(built.config).vocab_size == 128
    for name, parameter in built.named_parameters():  # weight decay would move what text does not go through
        assert parameter.requires_grad == ("vision" not in name and "multi_modal" not in name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "mistral3", "text_config": {**TEXT, "model_type": "mistral"}},
            "model.config describes no model",
        ),
        ({"model_type": "musicgen"}, "several text models"),
        ({"model_type": "qwen2_5_vl", "text_config": TEXT}, "model.config describes no model"),
    ],
)
def test_models_of_other_kinds_are_refused_in_a_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        try_to_build(*fitted(config, Vocabulary(90, 1, 2, 3)))
    assert "\n" not in str(caught.value)


ROBERTA = {**SIZES, "is_decoder": True, "max_position_embeddings": 34}


@pytest.mark.parametrize(
    ("config", "padding", "limit"),
    [
        ({**ROBERTA, "model_type": "roberta"}, 1, 32),
        ({**ROBERTA, "model_type": "camembert"}, 5, 28),
        ({**OPT, "max_position_embeddings": 32}, 1, 32),
        ({"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}, None, 32),
        ({**BART, "max_position_embeddings": 32}, 1, 32),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_last_position(config: dict[str, Any], padding: int | None, limit: int) -> None:
    """The longest sample that is let through runs, and one token more does not, and is refused with that number."""
    vocabulary = Vocabulary(90, 0, 2, padding)
    found, model = fitted(config, vocabulary)
    empty, built = try_to_build(found, model), build_model(found, model)

    def check(length: int) -> None:
        check_sequence_length(found, length, "data.sequence_length")
        check_positions(empty, found, Lengths(length, length, length), vocabulary, "data.sequence_length")

    def run(length: int) -> None:
        ids = torch.full((1, length), 7)
        built(input_ids=ids, labels=ids)

    check(limit)
    run(limit)
    with pytest.raises(ConfigError, match=rf"data.sequence_length is {limit + 1}, .*it must be at most {limit}$"):
        check(limit + 1)
    with pytest.raises((RuntimeError, IndexError)):
        run(limit + 1)


@pytest.mark.parametrize(("padding", "message"), [(None, "there is none"), (0, "pad_token_id 0 is BOS or EOS")])
def test_positions_that_depend_on_padding(padding: int | None, message: str) -> None:
    vocabulary = Vocabulary(90, 0, 2, padding)
    found, model = fitted({**ROBERTA, "model_type": "roberta"}, vocabulary)
    with pytest.raises(ConfigError, match=message):
        check_positions(try_to_build(found, model), found, Lengths(30, 30, 30), vocabulary, "data.sequence_length")
