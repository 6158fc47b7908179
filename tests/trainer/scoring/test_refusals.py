"""What cannot be scored, or not into this folder, is said before anything is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from presence_ds import cli
from presence_ds.trainer.checkpoint.manifest import complete_checkpoints
from tests.trainer.conftest import WORDS
from tests.trainer.scoring.conftest import REFERENCE, Score
from tests.trainer.scoring.runs import read


@pytest.fixture(scope="module")
def scored(score: Score, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds one of three shards."""
    folder = tmp_path_factory.mktemp("scored") / "scores"
    assert score(folder, "--checkpoint", trained, "--shard", "1/3", *REFERENCE) is None
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()} if folder.exists() else {}


@pytest.fixture
def refused(score: Score, tmp_path: Path) -> Callable[..., str]:
    """The error of a command that leaves its output as it was."""

    def refused(*options: str | Path, output: Path | None = None, recipe: Path | None = None) -> str:
        folder = output or tmp_path / "new"
        before = content(folder)
        error = score(folder, *options, recipe=recipe)
        assert error is not None
        assert "\n" not in error
        assert content(folder) == before
        assert output is not None or not folder.exists()
        return error

    return refused


def changed(recipe: Path, path: Path, **sections: object) -> Path:
    """The recipe with other sections."""
    path.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | sections))
    return path


def test_what_is_asked_for(refused: Callable[..., str], trained: Path, scoring_recipe: Path, tmp_path: Path) -> None:
    named = ("--checkpoint", trained)
    assert "neither is given; give checkpoints of a run" in refused()
    assert "both are given" in refused(*named, "--model", trained)
    for shard in ("3/3", "0/0", "1"):
        assert "it must be I/N" in refused(*named, "--shard", shard)
    assert "--rows_per_file is 0: it must be at least 1" in refused(*named, "--rows_per_file", "0")
    layers = "--presence.layers=[nope*]"
    assert "matches no trainable parameter" in refused(*named, layers, output=tmp_path / "logs")
    leverage = ("--presence.signal=leverage", "--presence.preset=paper", "--presence.strategy=two_pass")
    assert "signal is leverage, self-influence under the curvature of a batch" in refused(*named, *leverage)
    assert "granularity is microbatch, whose scores depend on the batch" in refused(
        *named, "--presence.granularity=microbatch"
    )
    assert "training.precision is fp16" in refused(*named, "--training.precision=fp16")
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"text": "a text"}) + "\n")
    data = {"sources": [{"name": "lines", "path": str(text)}], "validation_fraction": 0}
    own = changed(scoring_recipe, tmp_path / "own.yaml", data=data)
    assert "--shard is 0/2 without data.prepared" in refused(*named, "--shard", "0/2", recipe=own)


def test_the_checkpoint(refused: Callable[..., str], trained: Path, scoring_recipe: Path, tmp_path: Path) -> None:
    assert "there is no checkpoint" in refused("--checkpoint", tmp_path)
    newest = complete_checkpoints(trained / "checkpoints")[-1]
    assert "given 2 times as" in refused("--checkpoint", newest, "--checkpoint", trained)
    model = yaml.safe_load(scoring_recipe.read_text())["model"]["config"]
    deeper = changed(scoring_recipe, tmp_path / "deeper.yaml", model={"config": model | {"n_layer": 3}})
    assert "model.n_layer is 3" in refused("--checkpoint", trained, recipe=deeper)
    assert "data.document_mask is true" in refused("--checkpoint", trained, "--data.document_mask=true")
    damaged = tmp_path / "run" / "checkpoints" / newest.name
    shutil.copytree(newest, damaged)
    states = next(damaged.glob("*_model_states.pt"))
    states.write_bytes(states.read_bytes()[:-1])
    assert "it is damaged" in refused("--checkpoint", damaged)


def test_another_corpus(
    refused: Callable[..., str], scored: Path, trained: Path, scoring_recipe: Path, tmp_path: Path
) -> None:
    """Of other text, with a tokenizer trained on that; of another length."""
    text = tmp_path / "text.jsonl"
    documents = [" ".join(reversed(WORDS)) + f" other words {number}" for number in range(300)]
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    own, other = scoring_recipe.parent / "corpus" / "tokenizer", tmp_path / "other" / "tokenizer"
    tokenizers = {"other": {"vocab_size": 300}, "longer": {"path": str(own)}, "foreign": {"path": str(other)}}
    for name, tokenizer in tokenizers.items():
        length = 48 if name == "longer" else 32
        data = {"sources": [{"name": "lines", "path": str(text)}], "validation_fraction": 0, "sequence_length": length}
        made = changed(scoring_recipe, tmp_path / f"{name}.yaml", data=data | {"tokenizer": tokenizer})
        cli.main(["prepare", str(made), str(tmp_path / name)])
        changed(scoring_recipe, made, data={"prepared": str(tmp_path / name)})
    checkpoint = ("--checkpoint", trained)
    assert "another tokenizer than the corpus" in refused(*checkpoint, recipe=tmp_path / "other.yaml")
    assert "data.sequence_length is 48" in refused(*checkpoint, recipe=tmp_path / "longer.yaml")
    cli.main(["export", str(trained), str(tmp_path / "model")])
    model = ("--model", tmp_path / "model")
    assert "weights of model.path" in refused(*model, recipe=tmp_path / "other.yaml")
    assert "another tokenizer than the corpus" in refused(*model, recipe=tmp_path / "foreign.yaml")
    assert "sequence_length 32" in refused(*model, output=scored, recipe=tmp_path / "longer.yaml")


def test_another_scoring(
    refused: Callable[..., str], scored: Path, score: Score, trained: Path, tmp_path: Path
) -> None:
    named = ("--checkpoint", trained, *REFERENCE)
    checkpoints = complete_checkpoints(trained / "checkpoints")
    for option, field in {
        "--presence.projection_dim=8": "settings.projection_dim 4",
        "--presence.layers=first": 'settings.layers "all"',
        "--presence.loss_normalizer=sum": "settings.loss_normalizer",
        "--presence.seed=1": "settings.seed 0",
        "--training.precision=bf16": 'settings.precision "fp32"',
        "--rows_per_file=60": "rows_per_file 50",
    }.items():
        assert f"its scores were made with {field}" in refused(*named, option, output=scored)
    assert 'settings.reference ["lines"]' in refused(*named[:2], output=scored)
    assert "made with checkpoints" in refused("--checkpoint", checkpoints[0], *REFERENCE, output=scored)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "it holds notes.txt and no scores" in refused(*named, output=tmp_path / "mine")
    assert "is a file" in refused(*named, output=tmp_path / "mine" / "notes.txt")
    shutil.copytree(trained, tmp_path / "moved")  # the same checkpoint, which is no other
    assert score(scored, "--checkpoint", tmp_path / "moved", *REFERENCE, "--shard", "0/3") is None
    assert len(read(scored)) == 500
