"""Prepared corpora to score, in each packing."""

import json
from pathlib import Path

import pytest

from presence_ds.data import DataConfig, NoiseConfig, SourceConfig, TokenizerConfig, prepare_corpus
from tests.data.conftest import make_text

PACKINGS = ("concat", "best_fit", "document")
LANGUAGES = {"a": "en", "b": "en", "c": "de"}


@pytest.fixture(scope="session")
def documents() -> dict[tuple[str, str], str]:
    """Texts by source and id, of one to three times 60 words; c is small."""
    sizes = {"a": 60, "b": 60, "c": 8}
    return {
        (source, f"{source}{number}"): make_text(ord(source) * 1000 + number) * (1 + number % 3)
        for source, size in sizes.items()
        for number in range(size)
    }


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory, documents: dict[tuple[str, str], str]) -> dict[str, Path]:
    """By packing: three sources in two languages, and noise."""
    folder = tmp_path_factory.mktemp("corpora")
    for source in LANGUAGES:
        lines = [json.dumps({"id": key, "text": text}) for (name, key), text in documents.items() if name == source]
        (folder / f"{source}.jsonl").write_text("\n".join(lines) + "\n")
    for packing in PACKINGS:
        config = DataConfig(
            sources=[
                SourceConfig(name, str(folder / f"{name}.jsonl"), id_field="id", language=language)
                for name, language in LANGUAGES.items()
            ],
            validation_fraction=0.1,
            packing=packing,  # type: ignore[arg-type]
            sequence_length=48,
            tokenizer=TokenizerConfig(vocab_size=400),
            noise=[NoiseConfig(share=0.2)],
        )
        prepare_corpus(config, folder / packing)
    return {packing: folder / packing for packing in PACKINGS}
