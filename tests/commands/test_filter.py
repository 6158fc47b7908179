"""`presence filter`: what it says, what it writes, and what it refuses in one line."""

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from presence_ds import cli
from presence_ds.data import DataConfig, SourceConfig, TokenizerConfig, open_corpus, prepare_corpus
from presence_ds.data.corpus import opening, storage, texts
from presence_ds.data.corpus.manifest import check_corpus
from presence_ds.trainer.scores.filter import select
from presence_ds.trainer.scores.rule import Rule
from tests.data.conftest import make_text
from tests.trainer.gain.records import Step, make_step, write_run
from tests.trainer.scores.folders import write_scores


@pytest.fixture
def scores(corpus: Path, tmp_path: Path) -> Path:
    """Every score is 1 more than that of the row before it."""
    return write_scores(tmp_path / "scores", corpus, np.arange(1, 101))


def run(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    capsys.readouterr()
    cli.main(["filter", *map(str, arguments)])
    return capsys.readouterr().out


def rows_left(corpus: Path) -> list[int]:
    return open_corpus(corpus).train.rows["unfiltered_row"][:]


def test_it_says_what_goes(scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, file = tmp_path / "filtered", tmp_path / "kept.jsonl"
    printed = run(capsys, scores, output, "--keep", "0.55", "--documents", file)
    assert rows_left(output) == list(range(55))
    assert "55 of 100 samples kept (55.0%)" in printed
    assert "dropped by score: 45" in printed
    assert re.search(r"web +55 +5 +91.7%", printed)
    assert re.search(r"wiki +0 +30 +0.0%", printed)
    assert "cut: 55 is kept, 56 is not" in printed
    for side, first, last in (("kept", 1, 55), ("dropped", 56, 100)):
        block = printed.split(f"{side}, evenly spaced by score:\n")[1].splitlines()[:20]
        found = [re.fullmatch(r"  (web|wiki|noise) +(\d+)  \\x1b\[31m\[bold\]\\u202e.*", line) for line in block]
        assert [int(match[2]) for match in (found[0], found[-1]) if match] == [first, last]
        assert all(found)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", printed)
    bars = re.findall(r"^ +[\d.]+ ([█░]*) +(\d+)$", printed, re.MULTILINE)
    assert len(bars) == 24
    assert sum(int(count) for _, count in bars) == 100
    assert any(set(bar) == {"█", "░"} for bar, _ in bars)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"web{number}" for number in range(55)]
    assert all(line["whole"] for line in lines)
    assert lines[0]["text"] == f"\x1b[31m[bold]\u202eweb\n{make_text(0)[:60]}"
    assert not list(tmp_path.glob(".*"))
    assert "was there already" in run(capsys, scores, output, "--keep", "0.55")


def test_a_warning_for_what_vanishes(scores: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main(["filter", str(scores), str(tmp_path / "one"), "--keep", "55"])
    warnings = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        'presence: warning: source "wiki" vanishes: all its 30 samples go; --by source keeps some',
        'presence: warning: source "noise" vanishes: all its 10 samples go; --by source keeps some',
        'presence: warning: language "de" vanishes: all its 30 samples go; --by language keeps some',
    ]
    cli.main(["filter", str(scores), str(tmp_path / "two"), "--keep", "55", "--by", "source", "--reverse"])
    assert "warning" not in capfd.readouterr().err
    assert len(rows_left(tmp_path / "two")) == 55
    where = "source <> 'wiki'"
    cli.main(["filter", str(scores), str(tmp_path / "three"), "--keep", "40", "--by", "source", "--where", where])
    warnings = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [  # no quota would keep any
        'presence: warning: source "wiki" vanishes: all its 30 samples go',
        'presence: warning: language "de" vanishes: all its 30 samples go',
    ]


def test_no_warning_of_what_the_verdicts_drop(scores: Path) -> None:
    """Neither of the source, nor of the language whose only one it is; of others that vanish there is one."""
    assert select(Rule(dropped_sources=("wiki",)), scores).vanished() == []
    found = select(Rule(dropped_sources=("wiki",), where="source = 'noise'"), scores).vanished()
    assert found == [("source", "web", 60, False)]


def test_sources_that_a_run_has_found_harmful(scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", {number: harmful(make_step(number)) for number in range(1, 201)})
    assert verdicts(run_dir, capsys) == {"web": "keep", "wiki": "keep", "noise": "drop"}
    output = tmp_path / "filtered"
    printed = run(capsys, scores, output, "--verdicts", run_dir)
    assert rows_left(output) == list(range(90))
    assert "dropped by verdict: 10" in printed
    filtered = check_corpus(output)["filtered"]
    assert filtered["rule"]["dropped_sources"] == ["noise"]
    assert filtered["verdicts"] == {"run_dir": str(run_dir), "first_step": 1, "last_step": 200}


def harmful(step: Step) -> Step:
    """With noise that is against everybody else."""
    alignment = step.samples.alignment
    assert alignment is not None
    samples = replace(step.samples, alignment=torch.where(step.samples.sources == 2, -alignment.abs(), alignment))
    return step._replace(samples=samples)


def verdicts(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `presence gain` says."""
    capsys.readouterr()
    cli.main(["gain", str(run_dir), "--json", "-"])
    sources = json.loads(capsys.readouterr().out)["sources"]
    return {name: one["verdict"] for name, one in sources.items()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no rule is given: keep, where, max_per_document or verdicts"),
        (["--keep", "1.5"], "keep is 1.5"),
        (["--keep", "1.0"], "keep is 1.0"),
        (["--keep", "0"], "keep is 0"),
        (["--keep", "some"], "keep"),
        (["--keep", "100"], "all 100 samples would be kept"),
        (["--keep", "5", "--by", "length"], "by"),
        (["--where", "loss < 0"], "nothing would be left of 100 samples (100 by where)"),
        (["--keep", "5", "--documents", "SCORES/scores.json"], "it exists already"),
        (["--keep", "5", "--documents", "SCORES/no/kept.jsonl"], "there is no folder"),
        (["--keep", "5", "--documents", "SCORES/../out"], "it is the folder to make"),
        (["--keep", "5", "--corpus", "SCORES"], "holds no prepared corpus"),
        (["--verdicts", "SCORES"], "there is no run in it"),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str], words: str, scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        cli.main(["filter", str(scores), str(tmp_path / "out"), *(a.replace("SCORES", str(scores)) for a in arguments)])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_corpus_comes_before_its_text(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decoded for a folder that is refused; what was killed in between is made good by the same command."""
    output, file = tmp_path / "out", tmp_path / "d.jsonl"
    arguments = ["filter", str(scores), str(output), "--keep", "5", "--documents", str(file)]
    output.write_text("mine")
    with monkeypatch.context() as patched:
        patched.setattr(texts, "_tokens", None)
        with pytest.raises(SystemExit):
            cli.main(arguments)
    assert "is a file" in capsys.readouterr().err
    output.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(storage.os, "replace", full_disk)
        with pytest.raises(SystemExit):
            cli.main(arguments)
    assert "out cannot be written (No space left on device)" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]
    run(capsys, *arguments[1:5])
    leftover, recent = tmp_path / ".d.jsonl.1.partial", tmp_path / ".d.jsonl.2.partial"
    for path in (leftover, recent):
        path.write_text("half")
    os.utime(leftover, (1e9, 1e9))
    assert "was there already" in run(capsys, *arguments[1:])
    assert len(file.read_text().splitlines()) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [recent.name, "d.jsonl", "out", "scores"]


def test_code_of_a_tokenizer(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, load = [], opening.load_corpus_tokenizer
    monkeypatch.setattr(opening, "load_corpus_tokenizer", lambda *given: asked.append(given[1]) or load(*given))
    run(capsys, scores, tmp_path / "one", "--keep", "5")
    run(capsys, scores, tmp_path / "two", "--keep", "5", "--trust_remote_code")
    assert asked == [False, True]


def test_names_that_a_terminal_would_obey(tmp_path: Path, capfd: pytest.CaptureFixture[str], corpus: Path) -> None:
    """Of sources, columns, documents and files, in tables, warnings and errors."""
    name, text = "we\x1b[31mb\x1b]0;evil\x07", json.dumps({"text": make_text(0)[:60]})
    (tmp_path / "a.jsonl").write_text(f"{text}\n" * 20)
    config = DataConfig(
        sources=[SourceConfig(source, str(tmp_path / "a.jsonl")) for source in (name, "b")],
        validation_fraction=0.0,
        packing="document",
        sequence_length=64,
        tokenizer=TokenizerConfig(path=str(corpus / "tokenizer")),
    )
    folder, column = tmp_path / "corpus", "loss_\x1b"
    prepare_corpus(config, folder)
    recipe, config.sources[0].name = tmp_path / "recipe.yaml", "a"
    recipe.write_text(json.dumps({"data": asdict(config)}))
    cli.main(["prepare", str(recipe), str(tmp_path / "co\x1b[b]:x:rpus")])
    scores = write_scores(tmp_path / "scores", folder, np.arange(40.0, 0.0, -1.0))
    (rows,) = scores.glob("rows-*")
    table = pq.read_table(rows)
    pq.write_table(table.append_column(column, table["self_influence"]), rows)
    cli.main(["filter", str(scores), str(tmp_path / "o\x1but"), "--keep", "20", "--column", column])
    cli.main(["probe", str(scores), "--clean", name, "--noisy", "b", "--column", column])
    cli.main(["gain", str(write_run(tmp_path / "r\x1bun", {number: make_step(number) for number in range(1, 21)}))])
    with pytest.raises(SystemExit):
        cli.main(["filter", str(scores), str(tmp_path / "no"), "--where", "cast('\x1b[31m' as int) > row"])
    printed = capfd.readouterr()
    for stream in printed:
        assert "we\\x1b[31mb" in stream or "\\x1b[31m" in stream
        assert not re.search("[\x00-\x09\x0b-\x1f]", stream)
    for shown in ("co\\x1b[b]:x:rpus", "o\\x1but", "r\\x1bun: steps", "loss_\\x1b, bins", " loss_\\x1b  "):
        assert shown in printed.out
    assert 'source "we\\x1b[31mb\\x1b]0;evil\\x07" vanishes' in printed.err


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")
