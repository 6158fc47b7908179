"""`presence probe`: a table, or JSON, of two sources of a scored corpus."""

import json
from pathlib import Path

import numpy as np
import pytest

from presence_ds import cli
from tests.trainer.scores.folders import write_scores


@pytest.fixture
def scores(corpus: Path, tmp_path: Path) -> Path:
    """Noise has scores from 2 on, the others from 1 to 2; one of noise is not a number, and one has no targets."""
    rows = np.arange(100)
    values = np.random.default_rng(0).uniform(1, 2, 100) + (rows >= 90)
    values[90] = np.nan
    return write_scores(tmp_path / "scores", corpus, values, loss=-values, has_targets=rows != 91)


def figures(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> dict[str, dict[str, float]]:
    capsys.readouterr()
    cli.main(["probe", *map(str, arguments), "--json", "-"])
    return json.loads(capsys.readouterr().out)


def test_figures(scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys, scores, "--clean", "web", "--noisy", "noise", "--bootstrap", "200")
    assert found["sources"]["noise"] == {"samples": 8, "documents": 8, "left_out": 2}
    assert found["auc"] == {"estimate": 1.0, "low": 1.0, "high": 1.0}
    assert found["clean"]["low"] < found["clean"]["estimate"] < found["clean"]["high"]
    assert found["ratio"]["estimate"] == found["noisy"]["estimate"] / found["clean"]["estimate"]
    assert 1.5 < found["ratio"]["estimate"] < 1.8
    by_loss = figures(capsys, scores, "--clean", "web", "--noisy", "noise", "--column", "loss", "--bootstrap", "0")
    assert by_loss["auc"]["estimate"] == 0.0
    assert by_loss["column"] == "loss"


def test_a_table_and_a_file(scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    file = tmp_path / "probe.json"
    cli.main(["probe", str(scores), "--clean", "web", "--noisy", "wiki", "--bootstrap", "100", "--json", str(file)])
    printed = capsys.readouterr().out
    found = json.loads(file.read_text())
    for title, name in (("mean of web", "clean"), ("mean of wiki", "noisy"), ("ratio", "ratio"), ("AUC", "auc")):
        (line,) = (line for line in printed.splitlines() if line.strip().startswith(title))
        figures = [f"{found[name][key]:.4g}" for key in ("estimate", "low", "high")]
        assert line.split() == [*title.split(), *figures[:2], "to", figures[2]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--clean", "web", "--noisy", "web"], "noisy is web, as clean is"),
        (["--clean", "web", "--noisy", "x"], '"x" is no source of'),
        (["--clean", "web", "--noisy", "wiki", "--column", "x"], "has no column x"),
        (["--clean", "web", "--noisy", "wiki", "--column", "source"], "column source of the scores is of type"),
        (["--clean", "web", "--noisy", "wiki", "--column", "reference_alignment"], "has no reference_alignment of any"),
        (["--clean", "web", "--noisy", "wiki", "--bootstrap", "-1"], "bootstrap is -1"),
        (["--clean", "web"], "noisy"),
        (["--clean", "web", "--noisy", "wiki", "--json", "/nowhere/probe.json"], "json is /nowhere/probe.json"),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str], words: str, scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["probe", str(scores), *arguments])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
