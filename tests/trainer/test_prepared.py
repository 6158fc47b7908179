"""Runs that share a corpus: as runs that make their own, and without a trace in it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from presence_ds import cli
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import read_metrics, read_scores
from tests.trainer.recipe.test_bad_recipes import fails_with_one_line
from tests.trainer.test_stopping import arguments, untimed


@pytest.fixture
def corpus(tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """What ``presence prepare`` makes of the tiny recipe."""
    cli.main(["prepare", str(tiny_recipe), str(tmp_path / "shared" / "corpus")])
    assert "lines" in capsys.readouterr().out
    return tmp_path / "shared" / "corpus"


def without_sources(recipe: Path, corpus: Path) -> Path:
    """The recipe with nothing in data but the folder."""
    values = yaml.safe_load(recipe.read_text())
    path = recipe.with_name("shared.yaml")
    path.write_text(yaml.safe_dump({**values, "data": {"prepared": str(corpus)}}))
    return path


def traces(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder with its inode, size and time of change."""
    stats = {str(path): path.stat() for path in (folder, *folder.rglob("*"))}
    return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def test_a_run_is_the_same_and_is_resumed_and_exported(
    two_ranks: Ranks, tiny_recipe: Path, corpus: Path, tmp_path: Path
) -> None:
    """To the bit, stopped on the way, with an evaluation, a reference stream and the text itself gone."""
    more = ["--presence.signal=alignment", "--presence.strategy=two_pass", "--reference.sources=[lines]"]
    whole = two_ranks.run(pool_runs.train, arguments(tiny_recipe, tmp_path / "own", *more))
    assert whole[0]["status"] == 0, whole[0]["message"]
    before = traces(corpus.parent)
    shared, run_dir = without_sources(tiny_recipe, corpus), tmp_path / "run"
    held = ("is_held", 3, 1, str(corpus / "corpus.json"))  # so that presence prepare --overwrite is refused
    stopped = two_ranks.run(pool_runs.train, arguments(shared, run_dir, *more), held, ("signal", 5, 0, "SIGTERM"))
    assert stopped[0]["status"] == 75
    finished = two_ranks.run(pool_runs.train, [str(run_dir / "recipe.yaml")])
    assert finished[0]["status"] == 0, finished[0]["message"]
    assert traces(corpus.parent) == before
    assert not (run_dir / "corpus").exists()
    assert untimed(run_dir) == untimed(tmp_path / "own")
    assert read_scores(run_dir) == read_scores(tmp_path / "own")
    for ours, theirs in zip(finished[0]["parameters"], whole[0]["parameters"], strict=True):
        assert torch.equal(ours, theirs)
    assert read_metrics(run_dir)[-1]["validation/loss"] is not None
    vocabulary = AutoTokenizer.from_pretrained(corpus / "tokenizer").get_vocab()
    shutil.rmtree(corpus)
    cli.main(["export", str(run_dir), str(tmp_path / "model")])
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == vocabulary


def test_estimate_reads_the_corpus(tiny_recipe: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for recipe in (tiny_recipe, without_sources(tiny_recipe, corpus)):
        cli.main(["estimate", str(recipe), "--ranks", "2"])
        printed.append(capsys.readouterr().out)
    assert "512 on 2 ranks" in printed[1]
    assert printed[1] == printed[0]


def test_prepared_again(tiny_recipe: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same data section leaves the folder as it is; another replaces it when told, and nothing else is replaced."""
    before = traces(corpus)
    cli.main(["prepare", str(tiny_recipe), str(corpus), "--training.steps", "7"])
    assert traces(corpus) == before
    other = [str(tiny_recipe), str(corpus), "--data.sequence_length", "16"]
    for given, message in (
        (other, "holds a corpus that was made otherwise"),
        ([*other[:1], str(tiny_recipe.parent)], "is not part of a prepared corpus"),
        ([*other[:2], "--data.prepared", str(corpus)], "data.prepared is"),
        ([*other[:2], "--data.sources", "[]"], "data.sources is empty"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            cli.main(["prepare", *given])
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert traces(corpus) == before
    cli.main(["prepare", *other, "--overwrite"])
    assert json.loads((corpus / "corpus.json").read_text())["config"]["sequence_length"] == 16


def test_bad_corpora_end_the_run_before_it_starts(
    tiny_recipe: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = str(without_sources(tiny_recipe, corpus))
    assert "data.sequence_length is 64" in fails_with_one_line([shared, "--data.sequence_length", "64"], capsys)
    long = ["--model.config.n_positions", "16"]
    assert "data.sequence_length is 32, longer than the model's" in fails_with_one_line([shared, *long], capsys)
    (corpus / "validation.arrow").unlink()
    assert "validation.arrow is missing" in fails_with_one_line([shared], capsys)
    assert "holds no prepared corpus" in fails_with_one_line([shared, "--data.prepared", "nowhere"], capsys)
