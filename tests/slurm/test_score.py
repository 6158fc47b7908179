"""A corpus that is scored by an array of jobs."""

import shutil
from pathlib import Path

import pytest
import yaml
from transformers import GPT2Config, GPT2LMHeadModel

from presence_ds import cli
from tests.slurm.conftest import Jobs
from tests.trainer.scoring.runs import read

TWO_RANKS = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1")


@pytest.fixture
def model(jobs: Jobs) -> Path:
    """A prepared corpus for the recipe, and random weights that know its tokens."""
    recipe = jobs.work / "tiny.yaml"
    cli.main(["prepare", str(recipe), str(jobs.work / "corpus")])
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump(values | {"data": {"prepared": "corpus"}, "presence": {"signal": "uniform"}}))
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=320, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(jobs.work / "model")
    shutil.copytree(jobs.work / "corpus" / "tokenizer", jobs.work / "model", dirs_exist_ok=True)
    return jobs.work / "model"


def test_shares_make_one_folder(jobs: Jobs, model: Path) -> None:
    """Two of three, then the last by itself."""
    arguments = ("scores", "--model", model, "--rows_per_file", "50")
    job = jobs.submit("score.sbatch", *arguments, options=(*TWO_RANKS, "--array=0-1"), SHARDS="3")
    for index in (0, 1):
        jobs.wait(f"{job}_{index}", "COMPLETED")
    rows = len(read(jobs.work / "scores"))
    last = jobs.submit("score.sbatch", *arguments, options=(*TWO_RANKS, "--array=2"), SHARDS="3")
    jobs.wait(f"{last}_2", "COMPLETED")
    assert f"scores: {jobs.work}/scores, complete" in jobs.log(last)
    table = read(jobs.work / "scores")
    assert 0 < rows < len(table)
    assert table["row"].to_pylist() == list(range(len(table)))


def test_a_share_that_there_is_not(jobs: Jobs) -> None:
    job = jobs.submit("score.sbatch", "scores", options=("--array=3",), SHARDS="3")
    jobs.wait(f"{job}_3", "FAILED")
    assert jobs.log(job) == "presence: error: there is no share 3: SHARDS is 3, --array=0-2\n"
