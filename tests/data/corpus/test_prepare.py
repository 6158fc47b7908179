import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser

from presence_ds.data import (
    Corpus,
    CorpusReport,
    DataConfig,
    NoiseConfig,
    PackedDataset,
    SourceConfig,
    TokenizerConfig,
    open_corpus,
    prepare_corpus,
)
from presence_ds.data.sources.noise import shuffle_words
from presence_ds.data.tokenizer.tokenizer import encode
from presence_ds.errors import ConfigError, DataError

MakeConfig = Callable[..., DataConfig]
WriteJsonl = Callable[[str, dict[str, str]], Path]


def prepare(config: DataConfig, directory: Path) -> Corpus:
    prepare_corpus(config, directory)
    return open_corpus(directory)


def error_of(config: DataConfig, directory: Path, kind: type[Exception] = DataError) -> str:
    """The one-line message of the error that preparing raises; nothing must be left behind."""
    with pytest.raises(kind) as caught:
        prepare_corpus(config, directory)
    assert "\n" not in str(caught.value)
    assert not list(directory.parent.glob(f".{directory.name}.*"))
    return str(caught.value)


def decoded(corpus: Corpus, part: PackedDataset) -> dict[str, list[str]]:
    """The documents of each source, decoded from its samples; the last may be cut and is left out."""
    streams: dict[str, list[int]] = {}
    for row in part.rows:
        streams.setdefault(corpus.source_names[row["source_id"]], []).extend(row["input_ids"])
    eos = corpus.tokenizer.eos_token
    return {name: corpus.tokenizer.decode(tokens).split(eos)[:-1] for name, tokens in streams.items()}


def ids_of(texts: Mapping[str, str], documents: list[str]) -> list[str]:
    by_text = {text: key for key, text in texts.items()}
    return [by_text[document] for document in documents]


def test_samples_hold_the_documents_in_order(make_config: MakeConfig, tmp_path: Path, texts: dict[str, str]) -> None:
    corpus = prepare(make_config(), tmp_path / "corpus")
    report = corpus.report.train["docs"], corpus.report.validation["docs"]
    assert sum(part.documents for part in report) == 200
    assert sum(part.characters for part in report) == sum(map(len, texts.values()))
    for part, counts in zip((corpus.train, corpus.validation), report, strict=True):
        ids = ids_of(texts, decoded(corpus, part)["docs"])
        assert len(ids) >= counts.documents - 2  # the tail, shorter than a sample, is dropped
        assert ids == sorted(ids, key=list(texts).index)
        assert counts.samples == len(part)
        assert counts.tokens == 64 * counts.samples + counts.dropped_tokens
        assert counts.dropped_tokens < 64


def test_every_sample_points_at_its_text(corpus: Corpus, make_config: MakeConfig, tmp_path: Path) -> None:
    texts = {
        row["id"]: row["text"]
        for name in ("a", "b")
        for row in map(json.loads, (_folder(corpus) / f"{name}.jsonl").read_text().splitlines())
    }
    shuffled = corpus.source_names.index("shuffled")
    for row in corpus.train.rows:
        text = texts[row["document_id"]]
        if row["source_id"] == shuffled:
            text = shuffle_words(text, 0, row["document_id"])
        else:
            assert corpus.source_names[row["source_id"]] == row["document_id"][0]
        rest = [*encode(corpus.tokenizer, [text])[0], corpus.tokenizer.eos_token_id][row["offset"] :]
        assert rest[:32] == row["input_ids"][: len(rest)]


def _folder(corpus: Corpus) -> Path:
    return Path(corpus.train.rows.cache_files[0]["filename"]).parent.parent


def test_items_are_tensors(corpus: Corpus) -> None:
    import torch

    for part in (corpus.train, corpus.validation):
        item = part[len(part) - 1]
        assert set(item) == {"input_ids", "labels", "source_ids", "document_ids", "offsets"}
        assert item["input_ids"].shape == (32,)
        assert item["input_ids"].dtype == torch.int64
        assert torch.equal(item["labels"], item["input_ids"])
        assert type(item["source_ids"]) is int
        assert type(item["document_ids"]) is str
        row = part.rows[len(part) - 1]
        assert item["input_ids"].tolist() == row["input_ids"]
        assert (item["document_ids"], item["offsets"]) == (row["document_id"], row["offset"])


@pytest.mark.parametrize("packing", ["best_fit", "document"])
def test_padded_samples_hold_every_document(
    packing: str, make_config: MakeConfig, tmp_path: Path, texts: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Read back from tensors and stored rows, every token of every document comes once, at the place stated."""
    from rich.console import Console

    corpus = prepare(make_config(packing=packing), tmp_path / "corpus")
    found: dict[str, dict[int, list[int]]] = {}
    padding = 0
    for index, sample in enumerate(corpus.train):
        row = corpus.train.rows[index]
        length = int(sample["attention_mask"].sum())
        assert sample["attention_mask"].tolist() == [1] * length + [0] * (64 - length)
        assert sample["labels"].tolist() == sample["input_ids"][:length].tolist() + [-100] * (64 - length)
        assert sample["input_ids"][length:].eq(corpus.tokenizer.eos_token_id).all()
        assert sample["input_ids"][:length].tolist() == row["input_ids"]
        identity = {"document_id": sample["document_ids"], "offset": sample["offsets"]}
        start = 0
        for piece in row.get("pieces", [{**identity, "length": length}]):
            tokens = row["input_ids"][start : start + piece["length"]]
            assert found.setdefault(piece["document_id"], {}).setdefault(piece["offset"], tokens) is tokens
            start += piece["length"]
        assert start == length
        assert identity == {name: row.get("pieces", [identity])[0][name] for name in identity}
        padding += 64 - length
    for document_id, pieces in found.items():
        tokens = [token for offset in sorted(pieces) for token in pieces[offset]]
        assert tokens == [*encode(corpus.tokenizer, [texts[document_id]])[0], corpus.tokenizer.eos_token_id]
    report = corpus.report.train["docs"]
    assert len(found) == report.documents
    assert (report.padding, report.dropped_tokens) == (padding, 0)
    Console(width=120).print(corpus.report.table())
    assert f"{padding / (64 * report.samples):.1%}" in capsys.readouterr().out


def test_split_is_by_document_and_does_not_depend_on_the_order(
    make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path, texts: dict[str, str]
) -> None:
    def validation_ids(config: DataConfig, name: str) -> set[str]:
        corpus = prepare(config, tmp_path / name)
        held_out = set(ids_of(texts, decoded(corpus, corpus.validation)["docs"]))
        trained = set(ids_of(texts, decoded(corpus, corpus.train)["docs"]))
        assert not held_out & trained
        return held_out

    first = validation_ids(make_config(validation_fraction=0.3), "first")
    assert 35 <= len(first) <= 80
    turned = write_jsonl("turned.jsonl", dict(reversed(texts.items())))
    sources = [SourceConfig("docs", str(turned), id_field="id")]
    second = validation_ids(make_config(validation_fraction=0.3, sources=sources), "second")
    assert len(first ^ second) <= 4  # but for the documents in the dropped tails
    third = validation_ids(make_config(validation_fraction=0.3, seed=1), "third")
    assert len(first ^ third) > 30


def test_no_text_is_in_both_parts(make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    distinct = {f"{number}": f"document {number % 50} " + "word " * 30 for number in range(200)}
    path = write_jsonl("repeated.jsonl", distinct)
    corpus = prepare(make_config(sources=[SourceConfig("docs", str(path), id_field="id")]), tmp_path / "corpus")
    train, validation = (set(decoded(corpus, part)["docs"]) for part in (corpus.train, corpus.validation))
    assert not train & validation
    counts = corpus.report.train["docs"]
    assert counts.duplicates > 0
    assert counts.documents + counts.duplicates + corpus.report.validation["docs"].documents == 200


def test_validation_sources(make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path) -> None:
    held_out = {f"v{number}": f"held out {number} " + "word " * 30 for number in range(20)}
    validation = SourceConfig("dev", str(write_jsonl("dev.jsonl", held_out)))
    corpus = prepare(make_config(validation_sources=[validation]), tmp_path / "corpus")
    assert corpus.source_names == ["docs", "dev"]
    assert corpus.report.train["docs"].documents == 200
    assert list(corpus.report.validation) == ["dev"]
    assert set(decoded(corpus, corpus.validation)["dev"]) <= set(held_out.values())
    assert corpus.validation[0]["source_ids"] == 1


def test_no_validation(make_config: MakeConfig, tmp_path: Path) -> None:
    corpus = prepare(make_config(validation_fraction=0.0), tmp_path / "corpus")
    assert corpus.report.train["docs"].documents == 200
    assert len(corpus.validation) == 0


def test_noise_is_shuffled_copies_of_training_documents(
    make_config: MakeConfig, tmp_path: Path, texts: dict[str, str]
) -> None:
    corpus = prepare(make_config(noise=NoiseConfig(share=0.4, name="mixed")), tmp_path / "corpus")
    assert corpus.source_names == ["docs", "mixed"]
    originals, copies = (corpus.report.train[name].documents for name in ("docs", "mixed"))
    assert copies / (originals + copies) == pytest.approx(0.4, abs=0.06)
    by_words = {" ".join(sorted(text.split())): key for key, text in texts.items()}
    documents = decoded(corpus, corpus.train)
    copied = {by_words[" ".join(sorted(copy.split()))] for copy in documents["mixed"]}
    assert not set(documents["mixed"]) & set(texts.values())
    held_out = ids_of(texts, decoded(corpus, corpus.validation)["docs"])
    assert not copied & set(held_out)
    assert "mixed" not in corpus.report.validation


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
    for name in ("first", "second"):
        prepare_corpus(make_config(noise=NoiseConfig()), tmp_path / name)
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


def test_unloadable_tokenizer_is_found_before_reading(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text("nothing that can be read")
    config = make_config(tokenizer=TokenizerConfig(path=str(tmp_path / "none")))
    assert "cannot be loaded as a tokenizer" in error_of(config, tmp_path / "corpus")


def test_few_documents_may_have_no_shuffled_copy(make_config: MakeConfig, tmp_path: Path) -> None:
    corpus = prepare(make_config(noise=NoiseConfig(share=1e-9)), tmp_path / "corpus")
    assert corpus.report.train["shuffled"].documents == 0


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

    assert CorpusReport.from_json(json.loads(json.dumps(corpus.report.to_json()))) == corpus.report
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": []}, "data.sources is empty"),
        ({"sources": [SourceConfig("", "x")]}, "data.sources[0].name is empty"),
        ({"sources": [SourceConfig("x")]}, "data.sources[0].path is not set"),
        ({"sources": [SourceConfig("x", "p", format="python_packages")]}, "data.sources[0].path is set"),
        ({"sources": [SourceConfig("x", "p", max_megabytes=0)]}, "data.sources[0].max_megabytes is 0"),
        ({"sources": [SourceConfig("x", "p"), SourceConfig("x", "q")]}, 'data.sources has two sources named "x"'),
        ({"validation_sources": []}, "data.validation_sources is empty"),
        ({"validation_fraction": 1.0}, "data.validation_fraction is 1.0"),
        ({"sequence_length": 1}, "data.sequence_length is 1"),
        ({"max_bad_share": 2.0}, "data.max_bad_share is 2.0"),
        ({"max_document_megabytes": 0.0}, "data.max_document_megabytes is 0.0"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"tokenizer": TokenizerConfig(vocab_size=256)}, "data.tokenizer.vocab_size is 256"),
        ({"tokenizer": TokenizerConfig(path="")}, "data.tokenizer.path is empty"),
        ({"noise": NoiseConfig(share=0.6)}, "data.noise.share is 0.6"),
        ({"noise": NoiseConfig(share=0.0)}, "data.noise.share is 0.0"),
        ({"noise": NoiseConfig(name="docs")}, 'data.noise.name "docs" is the name of a source'),
    ],
)
def test_bad_values_name_their_field(
    make_config: MakeConfig, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    assert message in error_of(make_config(**fields), tmp_path / "corpus", ConfigError)


def test_configuration_parses_from_yaml_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=DataConfig)
    section = yaml.safe_load(
        """
        sources:
          - {name: web, path: ["a/*.jsonl", b], text_field: body}
          - {name: code, format: python_packages, content: code, max_megabytes: 4}
        tokenizer: {vocab_size: 4096}
        noise: {share: 0.2}
        """
    )
    config = parser.instantiate(parser.parse_object({"data": section})).data
    config.validate()
    assert config.sources[1] == SourceConfig("code", format="python_packages", content="code", max_megabytes=4)
    assert config.noise == NoiseConfig(share=0.2)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "Share of a source's rows" in " ".join(capsys.readouterr().out.split())


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
