"""Runs in which the documents of a sample are kept apart: every loss is that of the documents, each by itself."""

import json
from collections.abc import Iterable
from itertools import groupby, product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from presence_ds import cli
from presence_ds.data import open_corpus
from tests.conftest import Pools
from tests.trainer import pool_runs
from tests.trainer.checkpoint.runs import share_score_files
from tests.trainer.conftest import WORDS, read_metrics, read_scores

LENGTH = 64
KEPT = 58  # score records of a rank, before they are collected
NO_DROPOUT = {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}


def masked(recipe: Path, run_dir: Path, **data: Any) -> Path:
    """The recipe with documents of all lengths, no dropout, and as good as no learning."""
    text = recipe.with_name("documents.jsonl")
    texts = [f"{index} " + " ".join(WORDS[index % 5 :: 1 + index % 4]) for index in range(300)]
    text.write_text("".join(json.dumps({"id": f"d{index}", "text": text}) + "\n" for index, text in enumerate(texts)))
    values = yaml.safe_load(recipe.read_text())
    values["run_dir"] = str(run_dir)
    values["data"]["sources"][0]["path"] = str(text)
    values["model"]["config"] |= NO_DROPOUT
    values["data"] |= {"document_mask": True, "sequence_length": LENGTH, "noise": None} | data
    values["optimizer"] = {"lr": 1e-12}  # the weights that it ends with are those that it began with
    values["training"] |= {"steps": 2}
    values["evaluation"] = {"every_steps": 1, "max_batches": None}
    values["logging"] = {"every_steps": 1}
    recipe.write_text(yaml.safe_dump(values))
    return recipe


def model_of(parameters: list[torch.Tensor]) -> GPT2LMHeadModel:
    vocabulary, width = parameters[0].shape
    config = GPT2Config(vocab_size=vocabulary, n_embd=width, n_layer=2, n_head=2, n_positions=LENGTH, **NO_DROPOUT)
    model = GPT2LMHeadModel(config).eval()
    for parameter, value in zip(model.parameters(), parameters, strict=True):
        parameter.data = value
    return model


def pieces_of(row: dict[str, Any]) -> Iterable[torch.Tensor]:
    """The tokens of every document of a stored row, [1, tokens] each."""
    start = 0
    for piece in row["pieces"]:
        yield torch.tensor([row["input_ids"][start : start + piece["length"]]])
        start += piece["length"]
    assert start == len(row["input_ids"])


@torch.no_grad()
def losses_alone(model: GPT2LMHeadModel, row: dict[str, Any]) -> list[float]:
    """The loss of every target of a stored row, from one document at a time."""
    found: list[float] = []
    for ids in pieces_of(row):
        found += F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none").tolist()
    return found


@pytest.mark.parametrize(("packing", "ranks", "strategy"), [("best_fit", 2, "two_pass"), ("concat", 1, "one_pass")])
def test_losses_are_those_of_each_document_alone(
    packing: str, ranks: int, strategy: str, pools: Pools, tiny_recipe: Path, tmp_path: Path
) -> None:
    recipe = masked(tiny_recipe, tmp_path / "run", packing=packing)
    parts = pools.get(ranks).run(pool_runs.train, [str(recipe), f"--presence.strategy={strategy}"])
    assert parts[0]["status"] == 0, parts[0]["message"]
    model = model_of(parts[0]["parameters"])
    corpus = open_corpus(tmp_path / "run" / "corpus")
    rows = {(row["document_id"], row["offset"]): row for row in corpus.train.rows}
    scores = read_scores(tmp_path / "run")
    for record in scores:
        row = rows[record["document_id"], record["offset"]]
        targets = losses_alone(model, row)
        assert record["loss"] == pytest.approx(sum(targets) / len(targets), rel=1e-5)
    assert max(len(row["pieces"]) for row in rows.values()) > 2
    lines = read_metrics(tmp_path / "run")
    validation = [loss for row in corpus.validation.rows for loss in losses_alone(model, row)]
    assert lines[-1]["validation/loss"] == pytest.approx(sum(validation) / len(validation), rel=1e-5)
    assert lines[-1]["tokens"] == sum(len(rows[r["document_id"], r["offset"]]["input_ids"]) for r in scores)


def test_every_document_has_a_record_and_a_weight(pools: Pools, tiny_recipe: Path, tmp_path: Path) -> None:
    """Ranks collect the records together, although one has as many as are kept before the other does."""
    recipe, pool = masked(tiny_recipe, tmp_path / "run"), pools.get(2)
    pool.run(share_score_files, 128, KEPT)
    try:
        parts = pool.run(pool_runs.train, [str(recipe), "--presence.granularity=document"])
    finally:
        pool.run(share_score_files, 128, 8192)
    assert parts[0]["status"] == 0, parts[0]["message"]
    model = model_of(parts[0]["parameters"])
    rows = open_corpus(tmp_path / "run" / "corpus").train.rows
    alone: dict[tuple[str, int], torch.Tensor] = {}
    first: dict[tuple[str, int], int] = {}  # pieces of the rows that begin so
    for row in rows:
        alone |= zip(((piece["document_id"], piece["offset"]) for piece in row["pieces"]), pieces_of(row), strict=True)
        first[row["document_id"], row["offset"]] = len(row["pieces"])
    scores, lines = read_scores(tmp_path / "run"), read_metrics(tmp_path / "run")
    for step, of_step in groupby(scores, lambda record: record["step"]):
        records = list(of_step)
        assert sum(float(record["weight"]) for record in records) == pytest.approx(1.0)
        assert len(records) == lines[step - 1]["samples"] > 32
    of_ranks = [sum(record["step"] == 1 and record["rank"] == rank for record in scores) for rank in (0, 1)]
    assert min(of_ranks) < KEPT <= max(of_ranks)
    places = [(record["step"], record["rank"], record["micro_step"], record["position"]) for record in scores]
    assert sorted(set(places)) == sorted(product([1, 2], [0, 1], [0, 1], range(4)))
    for place, found in groupby(range(len(scores)), places.__getitem__):
        keys = [(str(scores[index]["document_id"]), int(scores[index]["offset"])) for index in found]
        assert len(keys) == first[keys[0]], place
    for record in scores:
        ids = alone[record["document_id"], record["offset"]]
        assert record["has_targets"] == (ids.shape[1] > 1)
        if record["has_targets"]:
            loss = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:])
            assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert not all(record["has_targets"] for record in scores)
    assert lines[-1]["tokens"] == 32 * LENGTH


def test_documents_are_weighed_only_if_they_are_kept_apart(
    tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(tiny_recipe), "--presence.granularity=document"])
    assert ended.value.code == 1
    assert "presence.granularity is document with data.document_mask false" in capsys.readouterr().err


BLOOM = {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2}
OPT = {"model_type": "opt", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32}


@pytest.mark.parametrize(
    ("model", "message", "begun"),
    [
        (BLOOM, "data.document_mask is true, and BloomForCausalLM takes no position_ids", False),
        (OPT, "data.document_mask is true, and OPTForCausalLM lets the documents of a sample see each other", True),
    ],
)
def test_models_that_cannot_are_refused(
    model: dict[str, Any], message: str, begun: bool, pools: Pools, tiny_recipe: Path, tmp_path: Path
) -> None:
    recipe = masked(tiny_recipe, tmp_path / "run")
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump(values | {"model": {"config": model}}))
    (part,) = pools.get(1).run(pool_runs.train, [str(recipe)])
    assert part["status"] == 1
    assert message in part["message"]
    assert (tmp_path / "run").exists() == begun
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
