"""Corpora that are prepared from a configuration, and what is in them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from presence_ds.data import Corpus, DataConfig, PackedDataset, open_corpus, prepare_corpus
from presence_ds.errors import DataError

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


def folder_of(corpus: Corpus) -> Path:
    """Where the fixture's sources and corpus are."""
    return Path(corpus.train.rows.cache_files[0]["filename"]).parent.parent
