"""A folder for a corpus: what is there is kept, replaced by a whole one, or refused."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from presence_ds.data import NoiseConfig, SourceConfig, TokenizerConfig, open_corpus, prepare_corpus
from presence_ds.data.corpus import storage
from presence_ds.errors import DataError
from tests.data.corpus.corpora import MakeConfig, WriteJsonl, error_of, prepare


def test_same_configuration_is_reused_and_another_replaces_it(
    make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path, texts: dict[str, str]
) -> None:
    directory = tmp_path / "corpus"

    def identity() -> int:
        return (directory / "corpus.json").stat().st_ino

    prepare_corpus(make_config(), directory)
    first = identity()
    prepare_corpus(make_config(num_workers=2), directory)
    assert identity() == first
    (directory / "train.arrow").unlink()
    prepare_corpus(make_config(), directory)
    assert identity() != first
    prepare_corpus(make_config(sequence_length=32), directory)
    assert open_corpus(directory).train[0]["input_ids"].shape == (32,)
    prepare_corpus(make_config(), directory)
    before = open_corpus(directory).report.train["docs"].documents
    write_jsonl("docs.jsonl", dict(list(texts.items())[:150]))  # the same file with other contents
    prepare_corpus(make_config(), directory)
    assert open_corpus(directory).report.train["docs"].documents < before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "docs.jsonl"]


def test_same_configuration_gives_the_same_bytes(make_config: MakeConfig, tmp_path: Path) -> None:
    noises = [NoiseConfig(kind, 0.1) for kind in ("shuffled", "permuted", "random")]
    for name in ("first", "second"):
        prepare_corpus(make_config(noise=noises), tmp_path / name)
    for file in ("train.arrow", "validation.arrow", "tokenizer/tokenizer.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_failure_keeps_the_corpus_that_was_there(
    make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    directory = tmp_path / "corpus"
    corpus = prepare(make_config(), directory)
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no json\n" * 10)
    config = make_config(sources=[*make_config().sources, SourceConfig("broken", str(broken))])
    assert f"the first is {broken} line 1: not valid JSON" in error_of(config, directory)
    assert np.array_equal(open_corpus(directory).train.rows[0]["input_ids"], corpus.train.rows[0]["input_ids"])


def test_leftover_of_a_killed_run_is_removed_once_it_is_old(make_config: MakeConfig, tmp_path: Path) -> None:
    old, recent = (tmp_path / f".corpus.{name}.partial" for name in ("old", "recent"))
    for folder in (old, recent):
        folder.mkdir()
        (folder / "train.arrow").touch()
    os.utime(old / "train.arrow", (0, 0))
    os.utime(old, (0, 0))
    os.utime(recent, (0, 0))
    prepare_corpus(make_config(), tmp_path / "corpus")
    assert not old.exists()
    assert recent.exists()


@pytest.mark.parametrize("make", [storage.replaced_when_complete, storage.file_when_complete])
def test_a_leftover_that_another_process_takes_away_meanwhile(
    make: Callable[[Path], AbstractContextManager[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is looked at, or before it is removed."""
    (tmp_path / ".new.1.partial").symlink_to("nowhere")
    old = tmp_path / ".new.2.partial"
    old.touch()

    def a_day_later() -> float:
        old.unlink()
        return time.time() + 2 * storage.LEFTOVER_SECONDS

    monkeypatch.setattr(storage, "time", SimpleNamespace(time=a_day_later))
    with make(tmp_path / "new"):
        pass
    assert (tmp_path / "new").exists()
    assert not old.exists()


def test_nothing_but_a_corpus_is_ever_replaced(make_config: MakeConfig, tmp_path: Path) -> None:
    precious = tmp_path / "folder" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    (precious.parent / "corpus.json").write_text("[]")
    assert "folder holds corpus.json, which is not part" in error_of(make_config(), precious.parent)
    (precious.parent / "corpus.json").unlink()
    assert "folder holds thesis.txt, which is not part" in error_of(make_config(), precious.parent)
    assert "thesis.txt is a file" in error_of(make_config(), precious)
    assert precious.read_text() == "years of work"
    with pytest.raises(DataError, match="holds no prepared corpus"):
        open_corpus(precious.parent)
    prepare_corpus(make_config(), tmp_path / "corpus")
    (tmp_path / "corpus" / "notes.txt").write_text("results")
    assert "corpus holds notes.txt" in error_of(make_config(seed=1), tmp_path / "corpus")


def test_local_tokenizer_is_used_and_watched(make_config: MakeConfig, tmp_path: Path) -> None:
    prepare_corpus(make_config(), tmp_path / "first")
    folder = tmp_path / "first" / "tokenizer"
    config = make_config(tokenizer=TokenizerConfig(path=str(folder)))
    second = prepare(config, tmp_path / "second")
    assert second.tokenizer.get_vocab() == open_corpus(tmp_path / "first").tokenizer.get_vocab()
    before = (tmp_path / "second" / "corpus.json").stat().st_ino
    os.utime(folder / "tokenizer.json")
    prepare_corpus(config, tmp_path / "second")
    assert (tmp_path / "second" / "corpus.json").stat().st_ino != before
