"""Score, filter and train: a filter by self-influence finds strong noise, and its reverse keeps it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.sequential import ARMS, one_seed, report
from presence_ds import cli
from tests.conftest import Pools
from tests.trainer.checkpoint import runs as training
from tests.trainer.conftest import ROOT
from tests.trainer.scoring import runs as scoring

RECIPE = ROOT / "recipes" / "sequential" / "sequential.yaml"
SMALL = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def small_recipe(tmp_path: Path) -> Path:
    values = yaml.safe_load(RECIPE.read_text())
    values["deepspeed"] = str(ROOT / "ds_configs" / "zero1.json")
    values["model"]["config"] |= SMALL | {"num_key_value_heads": 2}
    values["data"] |= {"sequence_length": 64, "tokenizer": {"vocab_size": 2048}}
    for source in values["data"]["sources"]:
        source["max_megabytes"] = 0.5
    values["presence"]["layers"] = ["model.layers.*"]  # at this size what embeddings tell is in the way
    values["training"] |= {"steps": 40, "micro_batch_size": 32, "precision": "fp32"}
    values["evaluation"] = {"every_steps": 40}
    values["checkpoint"] = {"every_steps": None}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "small.yaml"


@pytest.mark.long
def test_the_filter_finds_noise_and_its_reverse_keeps_it(pools: Pools, small_recipe: Path, tmp_path: Path) -> None:
    """All of it, from text to three trainings. What they end at takes longer ones: see docs/sequential.md."""

    def presence(command: str, *arguments: Any) -> None:
        words = [str(argument) for argument in arguments]
        if command == "train":
            assert pools.get(1).run(training.train, *words) == [None]
        elif command == "score":
            assert [one["error"] for one in pools.get(1).run(scoring.score, *words)] == [None]
        else:
            cli.main([command, *words])

    presence("prepare", small_recipe, tmp_path / "corpus")
    found = one_seed(presence, small_recipe, tmp_path, 0, 0.8, 18, "permuted")
    assert set(found["aucs"]) == {"prose", "code"}
    assert all(auc > 0.8 for auc in found["aucs"].values())  # by the text of the packages that are installed
    noise = found["noise"]
    assert noise["lowest"] < 0.5 * noise["corpus"]
    assert noise["highest"] == pytest.approx(noise["corpus"] / 0.8, rel=0.02)
    assert len(set(found["losses"].values())) == len(ARMS)
    assert all(loss < 7.0 for loss in found["losses"].values())
    text = "\n".join(report({0: found, 1: found}, "permuted"))
    assert f"| {found['losses']['lowest']:.3f} | {found['losses']['lowest']:.3f} |" in text
