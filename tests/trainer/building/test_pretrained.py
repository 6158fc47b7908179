"""Weights at model.path: whole and all the model's, or refused in one line that says what is wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, LlamaConfig

from presence_ds.errors import ConfigError
from presence_ds.trainer.building import pretrained
from presence_ds.trainer.building.architecture import load_model_config
from presence_ds.trainer.building.construction import build_model
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.building.pretrained import check_weights

FILE = "model.safetensors"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama without tied weights."""
    folder = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=300, num_hidden_layers=1, tie_word_embeddings=False, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def rewrite(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Change:
    return lambda folder: save_file(change(load_file(folder / FILE)), folder / FILE, metadata={"format": "pt"})


def configure(**fields: object) -> Change:
    def change(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, **fields}))

    return change


def point(folder: Path) -> None:
    (folder / FILE).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 181000\n")


def cut(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / FILE), folder / "pytorch_model.bin")
    (folder / FILE).unlink()


def shard(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / FILE).unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def without_head(folder: Path) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(folder)


def adapt(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "someone/model"}')


CASES: dict[str, tuple[Change, str]] = {
    "torch.compile": (
        rewrite(lambda weights: {f"_orig_mod.{name}": weight for name, weight in weights.items()}),
        "its weights call model.embed_tokens.weight _orig_mod.model.embed_tokens.weight",
    ),
    "DataParallel": (
        rewrite(lambda weights: {f"module.{name}": weight for name, weight in weights.items()}),
        "its weights call model.embed_tokens.weight module.model.embed_tokens.weight",
    ),
    "one is missing": (
        rewrite(lambda weights: {name: weight for name, weight in weights.items() if "q_proj" not in name}),
        "its weights have no model.layers.0.self_attn.q_proj.weight: ",
    ),
    "an encoder without a head": (without_head, "its weights have no lm_head.weight: "),
    "more layers": (
        rewrite(
            lambda weights: weights | {n.replace(".0.", ".1."): w.clone() for n, w in weights.items() if ".0." in n}
        ),
        "its model.layers.1.input_layernorm.weight (and 8 more) is no weight of LlamaForCausalLM",
    ),
    "another shape": (
        configure(intermediate_size=48),
        "its model.layers.0.mlp.down_proj.weight has shape [16, 32], and by its config.json it must be [16, 48]",
    ),
    "integers": (
        rewrite(lambda weights: {name: (100 * weight).to(torch.int8) for name, weight in weights.items()}),
        "lm_head.weight in model.safetensors is I8",
    ),
    "float8": (
        rewrite(lambda weights: weights | {"lm_head.weight": weights["lm_head.weight"].to(torch.float8_e4m3fn)}),
        "lm_head.weight in model.safetensors is F8_E4M3",
    ),
    "quantized": (configure(quantization_config={"quant_method": "fp8"}), "its weights are quantized"),
    "git-lfs": (point, "model.safetensors is a pointer of git-lfs"),
    "cut short": (cut, "model.safetensors is damaged or cut short"),
    "empty": (lambda folder: (folder / FILE).write_bytes(b""), "model.safetensors is damaged or cut short"),
    "a pickle": (pickle, "its weights are a pickle (pytorch_model.bin)"),
    "no weights": (lambda folder: (folder / FILE).unlink(), "it holds no weights"),
    "a shard is missing": (shard, "model-00002-of-"),
    "an adapter": (adapt, "it holds an adapter"),
    "a damaged configuration": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_refused(case: str, saved: Path, tmp_path: Path) -> None:
    change, message = CASES[case]
    folder = shutil.copytree(saved, tmp_path / "copy")
    change(folder)
    model = ModelConfig(path=str(folder))
    with pytest.raises(ConfigError) as caught:
        check_weights(load_model_config(model), model)
    assert str(caught.value).startswith(f"model.path is {folder}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["torch.compile", "an encoder without a head", "another shape"])
def test_refused_when_they_are_loaded(case: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without accelerate names and shapes are found out no earlier."""
    monkeypatch.setattr(pretrained, "is_accelerate_available", lambda: False)
    folder = shutil.copytree(saved, tmp_path / "copy")
    CASES[case][0](folder)
    model = ModelConfig(path=str(folder))
    config = load_model_config(model)
    check_weights(config, model)
    with pytest.raises(ConfigError, match=r"model\.path is ") as caught:
        build_model(config, model)
    assert CASES[case][1] in str(caught.value)


BUFFERS = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "model.position_ids": torch.arange(8)}
HARMLESS: dict[str, Change] = {
    "as it was saved": lambda folder: None,
    "buffers of older versions": rewrite(lambda weights: weights | BUFFERS),
    "half precision": rewrite(lambda weights: {name: weight.bfloat16() for name, weight in weights.items()}),
    "several files": lambda folder: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(
        folder, max_shard_size="20KB"
    ),
}


@pytest.mark.parametrize("case", list(HARMLESS))
def test_let_through(case: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And found in a home directory."""
    folder = shutil.copytree(saved, tmp_path / "copy")
    HARMLESS[case](folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    model = ModelConfig(path="~/copy")
    config = load_model_config(model)
    check_weights(config, model)
    built = build_model(config, model)
    wanted = load_file(saved / FILE)
    for name, weight in built.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, wanted[name], rtol=0.01, atol=0.0)


@pytest.mark.parametrize("kind", [GPT2Config, LlamaConfig])
def test_tied_weights_are_not_missing(kind: type, tmp_path: Path) -> None:
    config = kind(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / FILE)
    model = ModelConfig(path=str(tmp_path))
    check_weights(load_model_config(model), model)


def test_differing_weights(saved: Path, tmp_path: Path) -> None:
    """What the field names may be missing, and is drawn, or too many, and is left out; nothing else."""
    folder = shutil.copytree(saved, tmp_path / "copy")
    without_head(folder)
    rewrite(lambda weights: weights | {"value_head.weight": torch.ones(3)})(folder)
    model = ModelConfig(path=str(folder), differing_weights=["lm_head.*", "value_head.*"])
    config = load_model_config(model)
    check_weights(config, model)
    assert build_model(config, model).lm_head.weight.std() > 0
    for kept in model.differing_weights:
        with pytest.raises(ConfigError, match=r"model\.differing_weights name what is to be"):
            check_weights(config, ModelConfig(path=str(folder), differing_weights=[kept]))
    with pytest.raises(ConfigError, match="no weights are loaded"):
        ModelConfig(path=str(folder), from_scratch=True, differing_weights=["lm_head.*"]).validate("model")
