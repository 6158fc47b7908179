"""A corpus for the commands on scores."""

import json
from pathlib import Path

import pytest

from presence_ds.data import DataConfig, SourceConfig, TokenizerConfig, prepare_corpus
from tests.data.conftest import make_text

ROWS_OF = {"web": 60, "wiki": 30, "noise": 10}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A row for every document, with text that no terminal should obey."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, count in ROWS_OF.items():
        texts = [f"\x1b[31m[bold]\u202e{name}\n{make_text(number)[:60]}" for number in range(count)]
        rows = (json.dumps({"id": f"{name}{number}", "text": text}) + "\n" for number, text in enumerate(texts))
        (folder / f"{name}.jsonl").write_text("".join(rows))
    config = DataConfig(
        sources=[
            SourceConfig(name, str(folder / f"{name}.jsonl"), id_field="id", language="de" if name == "wiki" else "en")
            for name in ROWS_OF
        ],
        validation_fraction=0.0,
        packing="document",
        sequence_length=512,
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    prepare_corpus(config, folder / "corpus")
    return folder / "corpus"
