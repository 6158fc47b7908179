"""Sources that ``datasets`` loads: folders here, as nothing can be downloaded, through the path that names take too."""

import json
from pathlib import Path

import datasets
import pytest

from presence_ds.data import DataConfig, SourceConfig, TokenizerConfig, open_corpus, prepare_corpus
from presence_ds.data.corpus.manifest import read_manifest
from presence_ds.data.readers.documents import Document
from presence_ds.errors import ConfigError, DataError
from tests.data.conftest import make_text
from tests.data.sources.files import error_of, read
from tests.data.streaming.test_streaming_documents import epoch_of, lanes_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of two configurations, one of them with two splits."""
    folder = tmp_path / "papers"
    (folder / "en").mkdir(parents=True)
    (folder / "de").mkdir()
    for name, texts in {"en/train": ["one", "two", None], "en/test": ["three"], "de/train": ["eins"]}.items():
        rows = [{"body": text, "key": f"{name}-{row}"} for row, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: en\n  data_files:\n  - {split: train, path: en/train.jsonl}\n"
        "  - {split: test, path: en/test.jsonl}\n"
        "- config_name: de\n  data_files:\n  - {split: train, path: de/*.jsonl}\n---\n"
    )
    return folder


def source_of(folder: Path, **fields: str) -> SourceConfig:
    return SourceConfig("papers", str(folder), format="hub", text_field="body", **fields)


def test_subsets_splits_and_ids(folder: Path) -> None:
    documents, skipped = read(source_of(folder, subset="en"), max_bad_share=0.5)
    assert documents == [Document("papers:1", "one"), Document("papers:2", "two")]
    assert skipped.rows == 1
    assert 'field "body" is missing or null' in skipped.examples[0]
    assert read(source_of(folder, subset="en", split="test"))[0] == [Document("papers:1", "three")]
    assert read(source_of(folder, subset="de", id_field="key"))[0] == [Document("de/train-0", "eins")]


def in_three_files(folder: Path, number: int) -> list[str]:
    """The texts of so many rows, which subset de has now in the place of its own."""
    texts = [make_text(row) for row in range(number)]
    for part in range(3):
        lines = [json.dumps({"body": text}) + "\n" for text in texts[number * part // 3 : number * (part + 1) // 3]]
        (folder / "de" / f"{part}.jsonl").write_text("".join(lines))
    (folder / "de" / "train.jsonl").unlink()
    return texts


def test_rows_are_counted_over_the_files_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """A split that the cache holds in several files, as it does from half a gigabyte on, is one table."""
    texts = in_three_files(folder, 300)
    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", "20KB")
    documents, _ = read(source_of(folder, subset="de"))
    assert documents == [Document(f"papers:{row}", text) for row, text in enumerate(texts, start=1)]
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) > 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subset": "fr"}, "cannot be loaded by datasets: BuilderConfig 'fr' not found"),
        ({}, "cannot be loaded by datasets: Config name is missing"),
        ({"subset": "en", "split": "validation"}, 'Unknown split "validation"'),
        ({"subset": "en", "text_field": "text"}, 'has no column "text": its columns are body, key'),
    ],
)
def test_what_a_dataset_does_not_have(folder: Path, fields: dict[str, str], message: str) -> None:
    source = source_of(folder)
    for name, value in fields.items():
        setattr(source, name, value)
    assert message in error_of(source)


def test_datasets_that_cannot_be_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    assert "doesn't contain any data files" in error_of(source_of(tmp_path / "empty"))
    (folder / "de" / "train.jsonl").write_text('{"body": "eins"}\n{"body": \n')
    message = error_of(source_of(folder, subset="de"))
    assert f'source "papers": path {folder} cannot be loaded by datasets: An error occurred while' in message
    assert "JSON" in message
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "path nobody/nothing cannot be loaded by datasets: Couldn't reach" in error_of(
        source_of(Path("nobody/nothing"))
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": ["a", "b"], "format": "hub"}, r"path is \['a', 'b'\]: with format hub it must be one"),
        ({"path": "a", "format": "hub", "split": "train[:5]"}, "split is 'train.:5.': it must name a split"),
        ({"path": "a.jsonl", "subset": "en"}, "subset is en and format is None: it is for format hub alone"),
        ({"path": "a", "format": "text", "split": "test"}, "split is test and format is text"),
        ({"path": "a", "format": "text", "revision": "main"}, "revision is main and format is text"),
    ],
)
def test_fields_that_cannot_be_used(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SourceConfig("s", **fields).validate("data.sources[0]")


def test_a_corpus_is_kept_until_the_dataset_changes(folder: Path, tmp_path: Path) -> None:
    def prepare() -> str:
        prepare_corpus(config, tmp_path / "corpus")
        manifest = read_manifest(tmp_path / "corpus")
        assert manifest is not None
        return str(manifest["digest"])

    file = folder / "de" / "train.jsonl"
    file.write_text("".join(json.dumps({"body": make_text(number)}) + "\n" for number in range(100)))
    config = DataConfig(
        sources=[source_of(folder, subset="de")], sequence_length=32, tokenizer=TokenizerConfig(vocab_size=400)
    )
    first = prepare()
    assert open_corpus(tmp_path / "corpus").report.train["papers"].documents > 90
    assert prepare() == first
    with file.open("a") as more:
        more.write(json.dumps({"body": make_text(100)}) + "\n")
    assert prepare() != first


def test_the_files_of_the_cache_are_streamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane has rows of every file, and all of them together every row once."""
    texts = in_three_files(folder, 90)
    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", "5KB")
    lanes = [[document for _, document, _ in epoch_of(lane)] for lane in lanes_of(source_of(folder, subset="de"), 4)]
    rows = [int(document.id.removeprefix("papers:")) for lane in lanes for document in lane]
    assert sorted(rows) == list(range(1, 91))
    assert all(document.text == texts[int(document.id[7:]) - 1] for lane in lanes for document in lane)
    assert {(int(document.id[7:]) - 1) // 30 for document in lanes[0]} == {0, 1, 2}


def test_an_empty_split(folder: Path) -> None:
    (folder / "de" / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="papers"):
        read(source_of(folder, subset="de"))
