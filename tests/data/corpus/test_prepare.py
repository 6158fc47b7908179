"""From sources to the samples of a corpus."""

import json
from pathlib import Path

import pytest

from presence_ds.data import Corpus, DataConfig, NoiseConfig, SourceConfig
from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.noise import shuffle_words
from presence_ds.data.tokenizer.encoding import encode
from presence_ds.data.tokenizer.noise import ENCODERS
from tests.data.corpus.corpora import MakeConfig, WriteJsonl, decoded, folder_of, ids_of, prepare


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
        for row in map(json.loads, (folder_of(corpus) / f"{name}.jsonl").read_text().splitlines())
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
    corpus = prepare(make_config(noise=[NoiseConfig(share=0.4, name="mixed")]), tmp_path / "corpus")
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


def test_few_documents_may_have_no_shuffled_copy(make_config: MakeConfig, tmp_path: Path) -> None:
    corpus = prepare(make_config(noise=[NoiseConfig(share=1e-9)]), tmp_path / "corpus")
    assert corpus.report.train["shuffled"].documents == 0


def test_each_kind_of_noise_is_a_source_of_its_own(
    make_config: MakeConfig, tmp_path: Path, texts: dict[str, str]
) -> None:
    """A document to a sample, so that each copy stands beside its original: BOS and EOS where they were."""
    noises = [NoiseConfig("permuted", 0.2), NoiseConfig("random", 0.1, name="dice"), NoiseConfig("shuffled", 0.1)]
    config = make_config(noise=noises, packing="document", sequence_length=512, validation_fraction=0.2, seed=4)
    config.tokenizer.add_bos = True
    corpus = prepare(config, tmp_path / "corpus")
    assert corpus.source_names == ["docs", "permuted", "dice", "shuffled"]
    assert list(corpus.report.validation) == ["docs"]
    rows = {(row["source_id"], row["document_id"]): row["input_ids"] for row in corpus.train.rows}
    assert len(rows) == sum(report.documents for report in corpus.report.train.values())
    for source_id, kind in ((1, "permuted"), (2, "random")):
        copies = {document_id: ids for (source, document_id), ids in rows.items() if source == source_id}
        assert len(copies) > 5
        documents = [Document(document_id, texts[document_id]) for document_id in copies]
        expected = ENCODERS[kind](corpus.tokenizer, 0, 4)(documents)
        for (document_id, ids), tokens in zip(copies.items(), expected, strict=True):
            assert ids == [*tokens, corpus.tokenizer.eos_token_id]
            assert ids[0] == corpus.tokenizer.bos_token_id
            assert len(ids) == len(rows[0, document_id])  # which is of the training part
