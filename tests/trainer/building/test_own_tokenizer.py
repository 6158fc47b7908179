"""Runs from pretrained weights: with the tokenizer beside them, and not with another by accident."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from presence_ds import cli
from presence_ds.commands.recipe_arguments import read_recipe
from presence_ds.commands.train import make_parser
from presence_ds.data import TokenizerConfig, open_corpus
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import ConfigError
from presence_ds.trainer.recipe.plan import Plan, make_plan
from presence_ds.trainer.recipe.recipe import Recipe
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import WORDS, read_metrics, read_scores
from tests.trainer.recipe.test_bad_recipes import fails_with_one_line
from tests.trainer.test_stopping import arguments, untimed


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama without its head, and a tokenizer that begins a text with BOS and has EOS for padding."""
    folder = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=320, add_bos=True), [" ".join(WORDS)] * 20)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(vocab_size=384, num_hidden_layers=1, tie_word_embeddings=False, pad_token_id=0, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture
def pretrained_recipe(tiny_recipe: Path, saved: Path) -> Path:
    """The tiny recipe with that model, and no word of a tokenizer."""
    recipe = yaml.safe_load(tiny_recipe.read_text())
    recipe["model"] = {"path": str(saved), "differing_weights": ["lm_head.*"]}
    del recipe["data"]["tokenizer"]
    tiny_recipe.write_text(yaml.safe_dump(recipe))
    return tiny_recipe


def plan(recipe_file: Path, *overrides: str) -> tuple[Recipe, Plan]:
    parser = make_parser()
    recipe, path = read_recipe(parser, parser.parse_args([str(recipe_file), *overrides]))
    return recipe, make_plan(recipe, path, world_size=2, bf16_hardware=False)


def test_a_run_is_resumed_and_exported(
    two_ranks: Ranks, one_rank: Ranks, pretrained_recipe: Path, saved: Path, tmp_path: Path
) -> None:
    """With BOS before every document, a head that is drawn, and EOS trained although it is padding."""
    more = [
        "--data.tokenizer.add_bos=true",
        "--training.steps=4",
        "--evaluation.every_steps=4",
        "--health.enabled=false",
    ]
    whole = two_ranks.run(pool_runs.train, arguments(pretrained_recipe, tmp_path / "whole", *more))
    assert whole[0]["status"] == 0, whole[0]["message"]
    stopped = two_ranks.run(
        pool_runs.train, arguments(pretrained_recipe, tmp_path / "run", *more), ("signal", 2, 0, "SIGTERM")
    )
    assert stopped[0]["status"] == 75
    finished = two_ranks.run(pool_runs.train, [str(tmp_path / "run/recipe.yaml")])
    assert finished[0]["status"] == 0, finished[0]["message"]
    assert untimed(tmp_path / "run") == untimed(tmp_path / "whole")
    assert read_scores(tmp_path / "run") == read_scores(tmp_path / "whole")
    for ours, theirs in zip(finished[0]["parameters"], whole[0]["parameters"], strict=True):
        assert torch.equal(ours, theirs)
    assert read_metrics(tmp_path / "run")[-1]["validation/bits_per_byte"] is not None

    corpus = open_corpus(tmp_path / "run/corpus")
    bos = AutoTokenizer.from_pretrained(saved).bos_token_id
    assert all((row["input_ids"][0] == bos) == (row["offset"] == 0) for row in corpus.train.rows)
    cli.main(["export", str(tmp_path / "run"), str(tmp_path / "model")])
    exported = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert exported("the model")["input_ids"] == AutoTokenizer.from_pretrained(saved)("the model")["input_ids"]
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["pad_token_id"] == exported.eos_token_id
    name = "model.embed_tokens.weight"
    before, after = load_file(saved / "model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    key = next(key for key in before if name.endswith(key))
    assert not torch.equal(before[key][exported.eos_token_id], after[name][exported.eos_token_id])

    more += ["--model.path", str(tmp_path / "model"), "--model.differing_weights=[]"]
    again = one_rank.run(pool_runs.train, arguments(pretrained_recipe, tmp_path / "again", *more))
    assert again[0]["status"] == 0, again[0]["message"]


def test_which_tokenizer_is_used(pretrained_recipe: Path, saved: Path, tmp_path: Path) -> None:
    recipe, _ = plan(pretrained_recipe)
    assert recipe.data.tokenizer.path == str(saved)
    trained = plan(pretrained_recipe, "--model.from_scratch=true", "--model.differing_weights=[]")[0].data.tokenizer
    assert (trained.path, trained.vocab_size) == (None, 8192)
    with pytest.raises(ConfigError, match=r"data\.tokenizer\.vocab_size is 280, so that one is trained"):
        plan(pretrained_recipe, "--data.tokenizer.vocab_size=280")
    alone = shutil.copytree(saved, tmp_path / "alone", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    with pytest.raises(ConfigError, match=rf"model\.path {alone} brings no tokenizer that can be used"):
        plan(pretrained_recipe, "--model.path", str(alone))


def test_weights_are_looked_at_before_ranks_are_started(
    pretrained_recipe: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(saved, tmp_path / "renamed")
    weights = load_file(folder / "model.safetensors")
    save_file({f"_orig_mod.{name}": weight for name, weight in weights.items()}, folder / "model.safetensors")
    run = [str(pretrained_recipe), "--run_dir", str(tmp_path / "run"), "--model.path", str(folder)]
    assert f"model.path is {folder}: its weights call model." in fails_with_one_line(run, capsys)
    (folder / "tokenizer.json").unlink()
    assert f"model.path {folder} brings no tokenizer that can be used" in fails_with_one_line(run, capsys)
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_is_compared(pretrained_recipe: Path, saved: Path, tmp_path: Path) -> None:
    """Ids without a row are refused, other tokens are told, and the model's own under another path is well."""
    same = shutil.copytree(saved, tmp_path / "same")
    other, large = tmp_path / "other", tmp_path / "large"
    train_tokenizer(TokenizerConfig(vocab_size=300), ["quite other words"] * 20).save_pretrained(other)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    tokenizer.add_tokens([f"<{number}>" for number in range(200)])
    tokenizer.save_pretrained(large)
    assert plan(pretrained_recipe, "--data.tokenizer.path", str(same))[1].warnings == ()
    (warning,) = plan(pretrained_recipe, "--data.tokenizer.path", str(other))[1].warnings
    assert f"data.tokenizer.path {other} is not that of model.path {saved}: of its" in warning
    with pytest.raises(ConfigError, match=rf"model\.path is {saved}, whose vocab_size is 384, and"):
        plan(pretrained_recipe, "--data.tokenizer.path", str(large))


def test_prepared_corpora(
    pretrained_recipe: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corpus is prepared with the model's tokenizer; one of another, trained for it, is refused."""
    own, trained = tmp_path / "own", tmp_path / "trained"
    cli.main(["prepare", str(pretrained_recipe), str(own)])
    assert open_corpus(own).tokenizer.get_vocab() == AutoTokenizer.from_pretrained(saved).get_vocab()
    cli.main(["prepare", str(pretrained_recipe), str(trained), "--model.from_scratch=true"])
    capsys.readouterr()
    assert plan(pretrained_recipe, "--data.prepared", str(own))[1].warnings == ()
    message = fails_with_one_line([str(pretrained_recipe), "--data.prepared", str(trained)], capsys)
    assert f"data.prepared {trained} was made with a tokenizer trained on its text" in message
    config = replace(LlamaConfig.from_pretrained(saved), vocab_size=1024)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "second")  # a second stage, on the same corpus
    shutil.copytree(trained / "tokenizer", tmp_path / "second", dirs_exist_ok=True)
    more = ["--data.prepared", str(trained), "--model.path", str(tmp_path / "second")]
    assert plan(pretrained_recipe, *more)[1].warnings == ()
