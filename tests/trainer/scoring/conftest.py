"""A prepared corpus, a run on it with checkpoints, and scores by them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from presence_ds import cli
from presence_ds.data import PackedDataset, open_corpus
from tests.conftest import Pools
from tests.trainer.checkpoint import runs as training
from tests.trainer.conftest import ROOT, write_recipe
from tests.trainer.scoring import runs

REFERENCE = ("--presence.signal=alignment", "--presence.preset=paper", "--presence.strategy=two_pass")
REFERENCE += ("--reference.sources=[lines]",)
Score = Callable[..., "str | None"]


@pytest.fixture(scope="session")
def scoring_recipe(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe on a prepared corpus of rows of different lengths."""
    work = tmp_path_factory.mktemp("scoring")
    path = write_recipe(work / "tiny.yaml", corpus_file)
    values = yaml.safe_load(path.read_text())
    values["data"]["packing"] = "best_fit"
    path.write_text(yaml.safe_dump(values))
    cli.main(["prepare", str(path), str(work / "corpus")])
    values["data"] = {"prepared": str(work / "corpus")}
    values["presence"] = {"signal": "uniform", "projection_dim": 4}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def dataset(scoring_recipe: Path) -> PackedDataset:
    return open_corpus(scoring_recipe.parent / "corpus").train


@pytest.fixture(scope="session")
def trained(pools: Pools, scoring_recipe: Path) -> Path:
    """The run directory of six steps with a checkpoint of every other one."""
    run_dir = scoring_recipe.parent / "run"
    options = ["--training.steps", "6", "--checkpoint.every_steps", "2", "--checkpoint.keep", "null"]
    options += ["--evaluation.every_steps", "null", "--optimizer.lr", "0.01", "--deepspeed", str(zero(1))]
    assert pools.get(2).run(training.train, str(scoring_recipe), *options, "--run_dir", str(run_dir)) == [None, None]
    return run_dir


@pytest.fixture(scope="session")
def score(pools: Pools, scoring_recipe: Path) -> Score:
    """Score into ``output``; the error that ended it on every rank, if any."""

    def score(
        output: Path, *options: Any, ranks: int = 1, stage: int = 1, recipe: Path | None = None, **how: Any
    ) -> Any:
        arguments = [recipe or scoring_recipe, output, "--rows_per_file", "50", "--deepspeed", zero(stage), *options]
        ended = pools.get(ranks).run(runs.score, *map(str, arguments), **how)
        assert len({one["error"] for one in ended}) == 1
        return ended[0]["error"]

    return score


def zero(stage: int) -> Path:
    """Everything partitioned at stage 3, however small."""
    return ROOT / "tests" / "trainer" / "scoring" / "zero3.json" if stage == 3 else ROOT / "ds_configs" / "zero1.json"
