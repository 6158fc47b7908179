"""Tokens of a run: those of text, on every rank alike, however the run was stopped and resumed."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from presence_ds.data import Corpus, open_corpus
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import read_metrics, read_scores
from tests.trainer.test_stopping import arguments, untimed


def stored(corpus: Corpus) -> dict[tuple[str, str, int], int]:
    """Tokens of every sample by its source and where it begins."""
    rows = corpus.train.rows
    columns = (rows["source_id"], rows["document_id"], rows["offset"], rows["input_ids"])
    return {(corpus.source_names[s], d, o): len(ids) for s, d, o, ids in zip(*columns, strict=True)}


@pytest.mark.parametrize("packing", ["document", "best_fit"])
def test_padding_is_no_token(two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path, packing: str) -> None:
    options = arguments(tiny_recipe, tmp_path / "whole", f"--data.packing={packing}", "--data.sequence_length=64")
    whole = two_ranks.run(pool_runs.train, options)
    assert whole[0]["status"] == 0, whole[0]["message"]
    sizes = stored(open_corpus(tmp_path / "whole" / "corpus"))
    scores, lines = read_scores(tmp_path / "whole"), read_metrics(tmp_path / "whole")
    assert min(sizes.values()) < 60
    for line in lines:
        keys = [(r["source"], r["document_id"], r["offset"]) for r in scores if r["step"] <= line["step"]]  # type: ignore[operator]
        assert line["tokens"] == sum(sizes[key] for key in keys)  # type: ignore[index]
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["tokens"] == lines[-1]["tokens"]
    assert summary["tokens_per_second"] > 0
    if packing == "document":
        options[options.index(str(tmp_path / "whole"))] = str(tmp_path / "run")
        assert two_ranks.run(pool_runs.train, options, ("signal", 5, 1, "SIGTERM"))[0]["status"] == 75
        again = two_ranks.run(pool_runs.train, [str(tmp_path / "run" / "recipe.yaml")])
        assert again[0]["status"] == 0, again[0]["message"]
        assert untimed(tmp_path / "run") == untimed(tmp_path / "whole")


def test_padding_of_streamed_samples_is_no_token(one_rank: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(tiny_recipe.read_text())
    values["data"] |= {"streaming": {"lanes": 2, "buffer_samples": 4}, "noise": None, "validation_fraction": 0.0}
    values["data"] |= {"packing": "document", "sequence_length": 64}
    tiny_recipe.write_text(yaml.safe_dump(values))
    (part,) = one_rank.run(pool_runs.train, arguments(tiny_recipe, tmp_path / "run", "--training.steps=4"))
    assert part["status"] == 0, part["message"]
    source = Path(values["data"]["sources"][0]["path"])
    texts = {row["id"]: row["text"] for row in map(json.loads, source.read_text().splitlines())}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "corpus" / "tokenizer")
    found = 0
    for row in read_scores(tmp_path / "run"):
        assert row["offset"] == 0
        found += len(tokenizer(texts[str(row["document_id"])], add_special_tokens=False)["input_ids"]) + 1
    assert read_metrics(tmp_path / "run")[-1]["tokens"] == found
