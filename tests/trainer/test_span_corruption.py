"""An encoder-decoder model trained on span corruption: a whole run, a resumed one, what it measures, and its export."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from presence_ds import cli
from presence_ds.data import ObjectiveConfig, TokenizerConfig, open_corpus
from presence_ds.data.tokenizer.encoding import sentinel_ids
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.trainer.building.architecture import load_model_config
from presence_ds.trainer.building.construction import build_model
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import presence_train, read_metrics, read_scores
from tests.trainer.recipe.test_bad_recipes import fails_with_one_line

T5 = {
    "model_type": "t5",
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,  # transformers 5 ties all the same, and does not scale the outputs, as in T5 1.1
}
LENGTHS = ObjectiveConfig("span_corruption").lengths(32)


@pytest.fixture
def span_recipe(tiny_recipe: Path) -> Path:
    """The tiny recipe with a T5 with dropout; the schedules do not depend on the length of the run."""
    recipe = yaml.safe_load(tiny_recipe.read_text())
    recipe["model"]["config"] = T5
    recipe["data"] |= {"objective": {"kind": "span_corruption"}, "tokenizer": {"vocab_size": 380}}
    recipe["presence"] = {"preset": "paper", "schedule": {"kind": "constant"}}
    recipe["lr_schedule"] = {"kind": "constant", "warmup_steps": 0}
    recipe["evaluation"] = {"every_steps": 6}
    recipe["logging"] = {"every_steps": 2}
    recipe["training"]["steps"] = 12
    tiny_recipe.write_text(yaml.safe_dump(recipe))
    return tiny_recipe


@pytest.mark.long
def test_a_run_is_resumed_and_exported(
    two_ranks: Ranks, span_recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Half of it through the launcher, the other half by resuming that: as one run, to the bit."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    (rank, _) = two_ranks.run(pool_runs.train, [str(span_recipe), "--run_dir", str(whole)])
    assert rank["status"] == 0, rank["message"]
    half = ["--run_dir", halves, "--training.steps", "6"]
    finished = presence_train(span_recipe, *half, environment=environment, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    (rank, _) = two_ranks.run(pool_runs.train, [str(halves / "recipe.yaml"), "--training.steps", "12"])
    assert rank["status"] == 0, rank["message"]
    assert f"{16 * LENGTHS.row:,} (4 samples" in finished.stdout
    assert read_scores(halves) == read_scores(whole)
    keys = ("step", "tokens", "loss", "gradient_norm", "validation/loss")
    lines = [[[line.get(key) for key in keys] for line in read_metrics(run)] for run in (halves, whole)]
    assert lines[0] == lines[1]
    last = read_metrics(whole)[-1]
    assert last["tokens"] == 12 * 16 * LENGTHS.row
    assert last["validation/bits_per_byte"] is None
    assert "bits/byte" not in finished.stdout
    assert last["throughput(tokens/s)"] > 0

    cli.main(["export", str(halves), str(tmp_path / "model")])
    model, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values())
    assert not model.config.scale_decoder_outputs
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    corpus = open_corpus(halves / "corpus")
    assert sentinel_ids(tokenizer, 100) == sentinel_ids(corpus.tokenizer, 100)
    assert (model.config.decoder_start_token_id, model.config.pad_token_id) == (tokenizer.pad_token_id,) * 2
    assert last["validation/loss"] == pytest.approx(validation_loss(model.eval(), corpus.validation), rel=1e-5)
    assert last["validation/perplexity"] == pytest.approx(torch.tensor(last["validation/loss"]).exp().item())
    document_ids = {(row["document_id"], row["offset"]) for row in corpus.train.rows.to_list()}
    assert {(row["document_id"], row["offset"]) for row in read_scores(halves)} <= document_ids


@torch.no_grad()
def validation_loss(model: torch.nn.Module, samples: Any) -> float:
    """Mean over all targets, sentinels and EOS among them, of samples one by one."""
    losses = []
    for index in range(len(samples)):
        sample = samples[index]
        assert len(sample["labels"]) == LENGTHS.targets
        logits = model(input_ids=sample["input_ids"][None], labels=sample["labels"][None]).logits[0]
        losses.append(F.cross_entropy(logits, sample["labels"]))
    return torch.stack(losses).mean().item()


BAD = {
    "causal model": (
        ["--model.config={model_type: gpt2, n_embd: 16, n_layer: 1, n_head: 2}"],
        "data.objective.kind is span_corruption, and gpt2 is no encoder-decoder model: it must be causal",
    ),
    "causal objective": (
        ["--data.objective.kind", "causal"],
        "data.objective.kind is causal, and t5 is an encoder-decoder model: it must be span_corruption",
    ),
    "other packing": (["--data.packing", "best_fit"], "data.packing is best_fit with data.objective.kind"),
    "too dense": (["--data.objective.noise_density", "0.9"], "data.objective.noise_density is 0.9"),
    "density of 0": (
        ["--data.objective.noise_density", "0"],
        "data.objective.noise_density is 0.0: it must be above 0",
    ),
    "short spans": (
        ["--data.objective.mean_span_length", "0"],
        "data.objective.mean_span_length is 0.0: it must be at",
    ),
    "small vocabulary": (
        ["--data.tokenizer.vocab_size", "300"],
        "data.tokenizer.vocab_size is 300: it must be at least",
    ),
    "no field of the model": (["--model.config.n_layer", "1"], "model.config.n_layer is not a field of T5Config"),
    "more positions than the model has": (
        ["--model.config={model_type: bart, d_model: 16, max_position_embeddings: 16}"],
        "data.sequence_length is 32, longer than the model's",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_recipes(case: str, span_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, expected = BAD[case]
    assert expected in fails_with_one_line([str(span_recipe), "--num_processes", "2", *overrides], capsys)


def test_estimate(span_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory, the model's FLOPs and what scoring adds to them are told, and tokens are those of the text."""
    cli.main(["estimate", str(span_recipe), "--ranks", "2"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{16 * LENGTHS.row:,} on 2 ranks" in printed
    assert re.search(r"scoring adds [1-9][0-9.]*% to them", printed)
    assert "activations" in printed
    assert "not counted" not in printed
    assert "FLOPs of the model" in printed


def test_a_shared_corpus_has_its_objective(span_recipe: Path, tmp_path: Path, capsys: Any) -> None:
    """A recipe without one takes the corpus's, another one is refused, and a causal model too."""
    cli.main(["prepare", str(span_recipe), str(tmp_path / "corpus")])
    recipe = yaml.safe_load(span_recipe.read_text())
    span_recipe.write_text(yaml.safe_dump(recipe | {"data": {"prepared": str(tmp_path / "corpus")}}))
    capsys.readouterr()
    cli.main(["estimate", str(span_recipe), "--ranks", "2"])
    assert f"{16 * LENGTHS.row:,} on 2 ranks" in capsys.readouterr().out
    other = ["--data.objective.noise_density", "0.3"]
    assert "data.objective.noise_density is 0.3, and data.prepared" in fails_with_one_line(
        [str(span_recipe), *other], capsys
    )
    causal = ["--model.config={model_type: gpt2, n_embd: 16, n_layer: 1, n_head: 2}"]
    assert "gpt2 is no encoder-decoder model" in fails_with_one_line([str(span_recipe), *causal], capsys)


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5", "bart"])
def test_models_are_built_with_the_ids_of_the_decoder(model_type: str, tmp_path: Path) -> None:
    """The tokenizer's, those of the recipe, or those of the model that is loaded."""
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=380), ["some words"] * 20, 3)
    bart = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    bart |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    fields = {**(bart if model_type == "bart" else T5), "model_type": model_type}
    for given, start in (({}, tokenizer.pad_token_id), ({"decoder_start_token_id": 7}, 7)):
        model = ModelConfig(config={**fields, **given})
        config = load_model_config(model)
        fit_vocabulary(config, model, Vocabulary.of(tokenizer))
        built = build_model(config, model)
        assert built.config.vocab_size == 384
        assert built.config.eos_token_id == tokenizer.eos_token_id
        ids = built.prepare_decoder_input_ids_from_labels(labels=torch.tensor([[5, -100]]))
        assert ids.tolist() == [[start, 5]]
    built.save_pretrained(tmp_path)
    loaded = ModelConfig(path=str(tmp_path))
    config = load_model_config(loaded)
    fit_vocabulary(config, loaded, Vocabulary.of(tokenizer))
    assert build_model(config, loaded).config.decoder_start_token_id == 7
