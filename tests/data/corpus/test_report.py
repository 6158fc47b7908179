"""What a preparation says of the text it was given."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from presence_ds.data import Corpus, SourceConfig, TokenizerConfig
from tests.data.corpus.corpora import MakeConfig, error_of, folder_of, prepare


def test_unloadable_tokenizer_is_found_before_reading(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text("nothing that can be read")
    config = make_config(tokenizer=TokenizerConfig(path=str(tmp_path / "none")))
    assert "cannot be loaded as a tokenizer" in error_of(config, tmp_path / "corpus")


def test_skipped_rows_are_reported(make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text(path.read_text() + "broken\n" * 8)
    corpus = prepare(make_config(max_bad_share=0.1), tmp_path / "corpus")
    skipped = corpus.report.train["docs"].skipped
    assert skipped.rows == 8
    assert [example.split(":")[0] for example in skipped.examples] == [f"{path} line {n}" for n in range(201, 206)]
    printed = capsys.readouterr().err
    assert f"skipped {path} line 201: not valid JSON" in printed
    assert "line 206" not in printed
    assert 'skipped 3 more rows of source "docs"' in printed


def test_damaged_file_is_reported(make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "e.jsonl.gz"
    damaged.write_bytes(b"no gzip")
    sources = [SourceConfig("docs", [str(damaged), str(tmp_path / "docs.jsonl")], id_field="id")]
    make_config()
    assert f"{damaged} cannot be read as a file: " in error_of(make_config(sources=sources), tmp_path / "corpus")
    corpus = prepare(make_config(sources=sources, on_bad_file="skip"), tmp_path / "corpus")
    files = corpus.report.train["docs"].skipped.files
    assert len(files) == 1
    assert files[0].startswith(f"{damaged} cannot be read")
    assert f"left out {files[0]}" in capsys.readouterr().err


def test_report_is_kept_and_printable(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    assert json.loads((folder_of(corpus) / "corpus" / "corpus.json").read_text())["report"] == asdict(corpus.report)
    assert list(corpus.report.train) == ["a", "b", "shuffled"]
    Console(width=80).print(corpus.report.table())
    printed = capsys.readouterr().out
    assert f"{corpus.report.train['a'].tokens:,}" in printed
    assert "padding" not in printed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sequence_length": 100_000}, "the train part has "),
        ({"validation_fraction": 1e-9}, "the validation part has 0 documents"),
        ({"validation_fraction": 0.01, "sequence_length": 2000}, "too few for one sample of sequence_length 2000"),
    ],
)
def test_too_small_corpus(make_config: MakeConfig, tmp_path: Path, fields: dict[str, float], message: str) -> None:
    assert message in error_of(make_config(**fields), tmp_path / "corpus")
