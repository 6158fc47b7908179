"""Small files of text for streams."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from presence_ds.data import DataConfig, SourceConfig, StreamingConfig, TokenizerConfig
from presence_ds.data.tokenizer.training import train_tokenizer
from tests.data.conftest import make_text
from tests.data.streaming.streams import LENGTH, SHORT, MakeConfig


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(TokenizerConfig(vocab_size=500), [make_text(number) for number in range(100)], 10)


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """Documents of two sources, those of b short."""
    a = {f"a{number}": make_text(number) for number in range(90)}
    return a | {f"b{number}": " ".join(make_text(number).split()[:SHORT]) for number in range(70)}


@pytest.fixture
def make(tmp_path: Path, texts: dict[str, str]) -> MakeConfig:
    """A configuration over a source of three files and one of one; keywords replace its fields."""

    def write(name: str, ids: list[str]) -> None:
        lines = [json.dumps({"id": key, "text": texts[key]}) + "\n" for key in ids]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(lines))

    for part in range(3):
        write(f"a/{part}.jsonl", [key for key in texts if key[0] == "a" and int(key[1:]) % 3 == part])
    write("b.jsonl", [key for key in texts if key[0] == "b"])

    def make(**fields: Any) -> DataConfig:
        defaults = {
            "sources": [
                SourceConfig("a", str(tmp_path / "a"), id_field="id", weight=0.75),
                SourceConfig("b", str(tmp_path / "b.jsonl"), id_field="id", weight=0.25),
            ],
            "streaming": StreamingConfig(lanes=4, buffer_samples=3),
            "validation_fraction": 0.0,
            "sequence_length": LENGTH,
            "seed": 5,
        }
        config = DataConfig(**{**defaults, **fields})
        config.validate()
        return config

    return make
