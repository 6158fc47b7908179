"""The recipe that was scored trains on the filtered corpus: mixtures, resuming, and another number of ranks."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from presence_ds import cli
from presence_ds.data import open_corpus
from presence_ds.data.corpus.manifest import check_corpus
from tests.conftest import Pools
from tests.trainer import pool_runs
from tests.trainer.conftest import read_scores
from tests.trainer.scores.folders import write_scores
from tests.trainer.test_stopping import arguments

STILL = [f"--model.config.{name}=0.0" for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")]
SAME_BATCH = ["--training.gradient_accumulation_steps=null", "--training.global_batch_size", "16"]


@pytest.fixture
def recipe(tiny_recipe: Path, corpus_file: Path, tmp_path: Path) -> Path:
    """With a second source, of which nothing will be left."""
    lines = [json.loads(line) for line in corpus_file.read_text().splitlines()[:40]]
    (tmp_path / "few.jsonl").write_text(
        "".join(json.dumps(line | {"text": f"few {line['text']}"}) + "\n" for line in lines)
    )
    values = yaml.safe_load(tiny_recipe.read_text())
    values["data"]["sources"].append({"name": "few", "path": str(tmp_path / "few.jsonl"), "id_field": "id"})
    tiny_recipe.write_text(yaml.safe_dump(values))
    return tiny_recipe


@pytest.fixture
def filtered(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """By scores of which noise has high ones: of 4 noisy rows about one is left, of the others most."""
    cli.main(["prepare", str(recipe), str(tmp_path / "corpus")])
    names = check_corpus(tmp_path / "corpus")["source_names"]
    ids = np.array(open_corpus(tmp_path / "corpus").train.rows["source_id"])
    scores = np.random.default_rng(0).uniform(size=len(ids)) + 0.7 * (ids == names.index("shuffled"))
    scores[ids == names.index("few")] = 1.0
    write_scores(tmp_path / "scores", tmp_path / "corpus", scores)
    cli.main(["filter", str(tmp_path / "scores"), str(tmp_path / "filtered"), "--where", "self_influence < 0.95"])
    capsys.readouterr()
    return tmp_path / "filtered"


def samples(run_dir: Path) -> list[tuple[object, ...]]:
    return [(row["step"], row["source"], row["document_id"], row["offset"]) for row in read_scores(run_dir)]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_run_goes_on_on_one_rank(pools: Pools, recipe: Path, filtered: Path, tmp_path: Path, weighted: bool) -> None:
    """It takes nothing but what is left, and the same samples as a run that was not stopped; noise its share of now."""
    if weighted:
        values = yaml.safe_load(recipe.read_text())
        for source, weight in zip(values["data"]["sources"], (2.0, 1.0), strict=True):
            source["weight"] = weight
        recipe.write_text(yaml.safe_dump(values))
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    more = [*STILL, *SAME_BATCH, "--data.prepared", str(filtered)]
    ended = pools.get(2).run(pool_runs.train, arguments(recipe, whole, *more))
    assert ended[0]["status"] == 0, ended[0]["message"]
    stopped = pools.get(2).run(pool_runs.train, arguments(recipe, run_dir, *more), ("signal", 5, 0, "SIGTERM"))
    assert stopped[0]["status"] == 75
    ended = pools.get(1).run(pool_runs.train, arguments(recipe, run_dir, *more))
    assert ended[0]["status"] == 0, ended[0]["message"]
    assert sorted(samples(run_dir)) == sorted(samples(whole))
    names, left = check_corpus(filtered)["source_names"], open_corpus(filtered).train.rows
    rows = {(names[row["source_id"]], row["document_id"], row["offset"]) for row in left}
    seen = [sample[1:] for sample in samples(run_dir)]
    assert len(seen) == 12 * 16
    assert set(seen) <= rows
    share = sum(source == "shuffled" for source, *_ in seen) / len(seen)
    noise = sum(names[row["source_id"]] == "shuffled" for row in left) / len(left)
    assert 0.02 < noise < 0.15  # of 0.2
    assert share == pytest.approx(noise, abs=0.06)
