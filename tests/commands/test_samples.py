"""`presence samples` prints what stands out, whatever stands in it, and says in one line what it cannot do."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from presence_ds import cli
from tests.commands.conftest import ROWS_OF
from tests.trainer.samples.records import columns_of, write_records

STEPS = list(range(11, 15))
SAMPLES = 96


def records_of_the_corpus() -> dict[str, Any]:
    """Its rows as samples, the last of all with the largest weight of its step."""
    columns = columns_of(STEPS)
    names = [(source, f"{source}{number}") for source, count in ROWS_OF.items() for number in range(count)][-SAMPLES:]
    columns["source"], columns["document_id"] = map(list, zip(*names, strict=True))
    columns["weight"][-1] = 0.5
    return columns


@pytest.fixture
def run_dir(corpus: Path, tmp_path: Path) -> Path:
    path = write_records(tmp_path / "r\x1bun", records_of_the_corpus())
    (path / "recipe.yaml").write_text(yaml.safe_dump({"data": {"prepared": str(corpus)}}))
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    capsys.readouterr()
    cli.main(["samples", *map(str, arguments)])
    found = capsys.readouterr()
    assert found.err == ""
    return found.out


def fails(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["samples", *map(str, arguments)])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_documents_as_text(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that a terminal would obey is in it."""
    output = shown(capsys, run_dir, "--top", "2", "--characters", "40")
    assert "\x1b" not in output
    assert "\u202e" not in output
    lines = output.splitlines()
    assert lines[0].endswith(f"r\\x1bun: steps 11 to 14, {SAMPLES} samples")
    assert lines[1] == "highest by weight; a weight of 1 is the mean of its step"
    assert lines[3].startswith("  1  weight 12  share ")
    assert lines[4] == "     noise · noise9 · from token 0 · step 14"
    assert lines[5].rstrip() == "     \\x1b[31m[bold]\\u202enoise"
    assert len([line for line in lines if re.match(r" +\d  weight", line)]) == 2


def test_figures_as_json(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    shown(capsys, run_dir, "--bottom", "3", "--by", "si", "--source", "wiki", "--steps", "12:", "--json", file)
    figures = json.loads(file.read_text())
    columns = records_of_the_corpus()
    chosen = (np.array(columns["source"]) == "wiki") & (columns["step"] >= 12)
    order = np.flatnonzero(chosen)[np.argsort(columns["self_influence"][chosen])][:3]
    assert [one["document_id"] for one in figures["samples"]] == [columns["document_id"][index] for index in order]
    assert {one["source"] for one in figures["samples"]} == {"wiki"}
    assert all(one["text"].startswith("\x1b[31m[bold]\u202ewiki\n") for one in figures["samples"])
    asked = {"by": "si", "order": "lowest", "source": "wiki", "first_step": 12, "last_step": 14, "without_text": None}
    assert asked.items() <= figures.items()
    assert figures["records"] == figures["counted"] == chosen.sum()


def test_a_run_that_was_copied_without_its_corpus(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The records are shown all the same; also of one that has no recipe."""
    (run_dir / "recipe.yaml").write_text("data: {prepared: /nowhere/corpus}\n")
    output = shown(capsys, run_dir, "--top", "1")
    assert "without text: /nowhere/corpus, data.prepared of the run in" in output
    assert "noise · noise9" in output
    (run_dir / "recipe.yaml").unlink()
    assert "without text: run_dir is" in shown(capsys, run_dir, "--top", "1")


def test_a_sample_that_the_corpus_has_not(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = records_of_the_corpus()
    columns["document_id"][-1] = "el\x1bsewhere"
    output = shown(capsys, write_records(run_dir, columns), "--top", "1")
    assert "noise · el\\x1bsewhere" in output
    assert "the corpus has no such sample" in output


def test_those_that_did_not_count_are_told(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = records_of_the_corpus()
    columns["has_targets"][:5] = False
    assert f"{SAMPLES - 5} samples; 5 more did not count" in shown(capsys, write_records(run_dir, columns))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--top", "0"], "top is 0: it must be from 1 to 10,000"),
        (["--bottom", "10001"], "bottom is 10001"),
        (["--top", "1", "--bottom", "1"], "top and bottom are both given"),
        (["--characters", "0"], "characters is 0"),
        (["--by", "length"], "by"),
        (["--source", "we'b"], "source is we'b: steps 11 to 14 have no sample of it; they have noise, web, wiki"),
        (["--steps", "14:13"], "steps is 14:13: the first must not be above the last"),
        (["--steps", "15:"], "steps is 15:: records are of steps 11 to 14"),
        (["--steps", ":10"], "steps is :10: records are of steps 11 to 14"),
        (["--steps", ":0"], "steps is :0: records are of steps 11 to 14"),
        (["--steps", "12"], "steps is 12: it must be two numbers"),
        (["--steps", "a:b"], "steps is a:b: it must be two numbers"),
        (["--json", "/nowhere/a.json"], "json is /nowhere/a.json: it cannot be written"),
    ],
)
def test_what_cannot_be_asked(
    run_dir: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in fails(capsys, run_dir, *arguments)


def test_runs_without_what_it_takes(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such directory" in fails(capsys, tmp_path / "nowhere")
    columns = records_of_the_corpus()
    del columns["alignment"]
    assert "by is alignment: no sample of steps 11 to 14" in fails(
        capsys, write_records(run_dir, columns), "--by", "alignment"
    )
    (file,) = (run_dir / "scores").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert "holds no score records: take it out" in fails(capsys, run_dir)
    file.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    assert "cannot be read" in fails(capsys, run_dir)
    pq.write_table(pq.read_table(write_records(tmp_path / "other", columns) / "scores").drop_columns("weight"), file)
    assert "holds no score records, without a column weight" in fails(capsys, run_dir)
    file.unlink()
    assert "it has no score records; they come with a checkpoint" in fails(capsys, run_dir)
