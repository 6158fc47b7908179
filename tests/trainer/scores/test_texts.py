"""The text of what is kept, as the documents had it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presence_ds.data import DataConfig, SourceConfig, TokenizerConfig, open_corpus, prepare_corpus
from presence_ds.data.corpus import texts as texts_module
from presence_ds.data.corpus.rows import StoredRows
from presence_ds.data.corpus.texts import texts
from presence_ds.errors import DataError
from presence_ds.trainer.scores.filter import select
from presence_ds.trainer.scores.rule import Rule
from tests.trainer.scores.conftest import PACKINGS
from tests.trainer.scores.folders import random_scores, write_scores

Documents = dict[tuple[str, str], str]


def lines(corpus: Path, packing: str, rows: np.ndarray) -> list[dict[str, Any]]:
    opened = open_corpus(corpus)
    found = texts(StoredRows(corpus), rows, packing, opened.tokenizer, opened.source_names)
    return [json.loads(line) for line in found]


@pytest.mark.parametrize("packing", PACKINGS)
def test_all_of_it_gives_the_documents_back(
    packing: str, corpora: dict[str, Path], documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts_module, "BLOCK_TOKENS", 500)
    corpus = open_corpus(corpora[packing])
    held_out = {piece["document_id"] for row in corpus.validation.rows for piece in row.get("pieces", [row])}
    found = lines(corpora[packing], packing, np.arange(len(corpus.train)))
    clean = [line for line in found if line["source"] != "shuffled"]
    whole = {(line["source"], line["id"]): line["text"] for line in clean if line["whole"]}
    assert len(whole) == sum(line["whole"] for line in clean)
    for key, text in whole.items():
        assert text == documents[key]
    missing = [source for source, name in documents if name not in held_out and (source, name) not in whole]
    assert missing == (["a", "b", "c"] if packing == "concat" else [])  # the end of each source fills no row
    in_order = [key for key in documents if key in whole]
    if packing != "best_fit":
        assert list(whole) == in_order
    assert all(line["whole"] for line in clean) or packing == "concat"


@pytest.mark.parametrize("packing", PACKINGS)
def test_parts_are_where_they_are_said_to_be(packing: str, corpora: dict[str, Path], documents: Documents) -> None:
    """With half of the rows, also of a corpus that has no others: every stretch is what stands there, no token more."""
    opened = open_corpus(corpora[packing])
    rows = np.sort(np.random.default_rng(3).permutation(len(opened.train))[: len(opened.train) // 2])
    tokenizer = opened.tokenizer
    tokens = {key: [*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for key, text in documents.items()}
    found, seen = lines(corpora[packing], packing, rows), 0
    for line in found:
        if line["source"] == "shuffled":
            continue
        seen += 1
        ids = tokens[line["source"], line["id"]][line["offset"] :]
        assert tokenizer.decode(ids).startswith(line["text"])
        same = line["text"] == documents[line["source"], line["id"]]
        assert same or not line["whole"]
        assert line["whole"] or not same or packing == "concat"  # where its EOS alone may be in a row that went
    assert seen > len(rows) // 8
    known = [(line["source"], line["id"]) for line in found]
    assert len(known) > len(set(known))  # with gaps between


def test_of_a_filtered_corpus(corpora: dict[str, Path], tmp_path: Path) -> None:
    """The same lines as of these rows where they were."""
    values = random_scores(corpora["concat"])
    folder = write_scores(tmp_path / "scores", corpora["concat"], values)
    output = tmp_path / "filtered"
    select(Rule(keep=0.5), folder).write(output)
    kept = np.sort(np.argsort(values)[: round(0.5 * len(values))])
    assert lines(output, "concat", np.arange(len(kept))) == lines(corpora["concat"], "concat", kept)


def test_a_corpus_that_did_not_note_where_documents_begin(corpora: dict[str, Path]) -> None:
    """As earlier versions wrote them with packing concat; it is said before there is a first line."""
    opened, rows = open_corpus(corpora["concat"]), StoredRows(corpora["concat"])
    rows.table = rows.table.drop_columns(["pieces"])
    with pytest.raises(DataError, match="did not note where the documents of packing concat begin"):
        texts(rows, np.arange(10), "concat", opened.tokenizer, opened.source_names)


def test_a_document_start_that_is_also_the_end(tmp_path: Path, documents: Documents, corpora: dict[str, Path]) -> None:
    """As with GPT-2's tokenizer and add_bos: the token stands twice between documents, and in no text."""
    tokenizer = open_corpus(corpora["concat"]).tokenizer
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    chosen = {key: text for (_, key), text in list(documents.items())[:20]}
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in chosen.items()))
    config = DataConfig(
        sources=[SourceConfig("a", str(file), id_field="id")],
        validation_fraction=0.0,
        sequence_length=48,
        tokenizer=TokenizerConfig(path=str(tmp_path / "tokenizer"), add_bos=True),
    )
    prepare_corpus(config, tmp_path / "corpus")
    rows = np.arange(len(open_corpus(tmp_path / "corpus").train))
    found = lines(tmp_path / "corpus", "concat", rows)
    assert [line["text"] for line in found[:-1]] == list(chosen.values())[: len(found) - 1]
    assert [line["id"] for line in found[:-1]] == list(chosen)[: len(found) - 1]
    assert len(found) >= 19
    assert tokenizer.eos_token not in found[-1]["text"]
