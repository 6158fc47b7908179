"""BOS stands before every document once, however samples are made of documents."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import processors

from presence_ds.data import (
    DataConfig,
    ObjectiveConfig,
    RankSamples,
    Stream,
    StreamedBatches,
    StreamingConfig,
    TokenizerConfig,
    fill_from_prepared,
    load_tokenizer,
    open_corpus,
    prepare_corpus,
)
from presence_ds.data.samples.objective import make_objective
from presence_ds.data.sources.finding import find_files
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import ConfigError, DataError
from tests.data.conftest import make_text

MakeConfig = Callable[..., DataConfig]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose template puts BOS before a text, and EOS after it."""
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=400, add_bos=True), [make_text(n) for n in range(40)], 10)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.bos_token} $A {tokenizer.eos_token}",
        special_tokens=[
            (name, tokenizer.convert_tokens_to_ids(name)) for name in (tokenizer.bos_token, tokenizer.eos_token)
        ],
    )
    tokenizer.save_pretrained(path)
    return path


def check_rows(rows: list[list[int]], bos: int, eos: int) -> None:
    """BOS comes after every EOS, and nowhere else but where a row begins."""
    assert sum(row.count(bos) for row in rows) > 5
    for row in rows:
        for before, token in pairwise(row):
            assert (before == eos) == (token == bos)


@pytest.mark.parametrize("packing", ["concat", "best_fit", "document"])
@pytest.mark.parametrize("add_bos", [None, False])
def test_every_document_of_a_corpus(
    packing: str, add_bos: bool | None, folder: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    length = 512 if packing == "best_fit" else 64  # which otherwise puts the rest of a document after another's EOS
    tokenizer = TokenizerConfig(str(folder), add_bos=add_bos)
    config = make_config(packing=packing, tokenizer=tokenizer, sequence_length=length)
    prepare_corpus(config, tmp_path / "corpus")
    corpus = open_corpus(tmp_path / "corpus")
    bos, eos = corpus.tokenizer.bos_token_id, corpus.tokenizer.eos_token_id
    for part in (corpus.train, corpus.validation):
        if add_bos is None and part is corpus.train:
            check_rows([row["input_ids"] for row in part.rows], bos, eos)
        for row in part.rows:
            assert (bos in row["input_ids"]) <= (add_bos is None)
            if row["offset"] == 0:
                assert (row["input_ids"][0] == bos) == (add_bos is None)
    reports = [report["docs"] for report in (corpus.report.train, corpus.report.validation)]
    placed = sum(len(row["input_ids"]) for part in (corpus.train, corpus.validation) for row in part.rows)
    assert placed == sum(report.tokens - report.dropped_tokens for report in reports)


def test_every_document_of_a_stream(folder: Path, make_config: MakeConfig) -> None:
    config = make_config(
        tokenizer=TokenizerConfig(str(folder)), streaming=StreamingConfig(lanes=2), validation_fraction=0.0
    )
    config.validate()
    streams = []
    for add_bos in (False, None):
        tokenizer = load_tokenizer(TokenizerConfig(str(folder), add_bos=add_bos))
        stream = Stream(config, [find_files(source, streamed=True) for source in config.sources], tokenizer)
        objective = make_objective(config.objective, 64, "concat", tokenizer, 0, "train")
        streams.append(StreamedBatches(RankSamples(stream, 0, 1), objective, 8))
    without, with_bos = streams
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    check_rows(next(with_bos)["input_ids"].tolist() + next(with_bos)["input_ids"].tolist(), bos, eos)
    assert bos not in next(without)["input_ids"]
    with pytest.raises(DataError, match="tokens before a document"):
        with_bos.load_state_dict(without.state_dict())


def test_span_corruption_and_a_trained_tokenizer(make_config: MakeConfig, tmp_path: Path) -> None:
    """What T5's template says, EOS and no BOS, is kept; a trained tokenizer has BOS where that is asked for."""
    spans = ObjectiveConfig("span_corruption")
    for add_bos in (None, True):
        config = make_config(objective=spans, tokenizer=TokenizerConfig(vocab_size=500, add_bos=add_bos))
        prepare_corpus(config, tmp_path / str(add_bos))
        corpus = open_corpus(tmp_path / str(add_bos))
        bos, eos = corpus.tokenizer.bos_token_id, corpus.tokenizer.eos_token_id
        rows = [row["input_ids"] for row in corpus.train.rows]
        assert (bos == eos) == (add_bos is None)
        if add_bos:
            check_rows(rows, bos, eos)
    again = make_config(sources=[], prepared=str(tmp_path / "True"), sequence_length=None, validation_fraction=0.01)
    again.tokenizer = TokenizerConfig()
    fill_from_prepared(again)
    assert again.tokenizer.add_bos is True
    again.tokenizer.add_bos = False
    with pytest.raises(ConfigError, match=r"add_bos is False, and data\.prepared"):
        fill_from_prepared(again)
