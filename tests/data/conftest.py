"""Small real files and a prepared corpus, shared by the tests of the data package."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from presence_ds.data import Corpus, DataConfig, NoiseConfig, SourceConfig, TokenizerConfig, open_corpus, prepare_corpus

WORDS = """
    the of and to in is that it was for on are with as his they be at one have this from or had by hot but some what
    there we can out other were all your when up use word how said an each she which do their time if will way about
    many then them would write like so these her long make thing see him two has look more day could go come
"""


def make_text(number: int) -> str:
    """About 60 English words in sentences, different for every number."""
    rng = random.Random(number)
    sentences = [" ".join(rng.choices(WORDS.split(), k=12)).capitalize() + f" {number}." for _ in range(5)]
    return "\n".join(sentences)


WriteJsonl = Callable[[str, dict[str, str]], Path]


@pytest.fixture
def texts() -> dict[str, str]:
    return {f"doc-{number}": make_text(number) for number in range(200)}


@pytest.fixture
def write_jsonl(tmp_path: Path) -> WriteJsonl:
    """Write {id: text} to a jsonl file of the given name."""
    return lambda name, texts: _write_jsonl(tmp_path / name, texts)


def _write_jsonl(path: Path, texts: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items()))
    return path


@pytest.fixture
def make_config(write_jsonl: WriteJsonl, texts: dict[str, str]) -> Callable[..., DataConfig]:
    """A configuration over one jsonl source of 200 documents; keywords replace its fields."""
    path = write_jsonl("docs.jsonl", texts)

    def make(**fields: Any) -> DataConfig:
        defaults = {
            "sources": [SourceConfig("docs", str(path), id_field="id")],
            "validation_fraction": 0.1,
            "sequence_length": 64,
            "tokenizer": TokenizerConfig(vocab_size=400),
        }
        return DataConfig(**{**defaults, **fields})

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A prepared corpus with two sources and noise."""
    folder = tmp_path_factory.mktemp("corpus")
    a = _write_jsonl(folder / "a.jsonl", {f"a{number}": make_text(number) for number in range(100)})
    b = _write_jsonl(folder / "b.jsonl", {f"b{number}": make_text(1000 + number) for number in range(50)})
    config = DataConfig(
        sources=[SourceConfig("a", str(a), id_field="id"), SourceConfig("b", str(b), id_field="id")],
        validation_fraction=0.1,
        sequence_length=32,
        tokenizer=TokenizerConfig(vocab_size=400),
        noise=[NoiseConfig()],
    )
    prepare_corpus(config, folder / "corpus")
    return open_corpus(folder / "corpus")
