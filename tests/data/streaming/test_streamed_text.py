"""Streamed samples are the text of their sources, each as often as it should be."""

import json
from collections import Counter, defaultdict
from itertools import chain, islice, pairwise
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from presence_ds.data import SourceConfig, StreamingConfig, TokenizerConfig, open_corpus, prepare_corpus
from presence_ds.data.hashing import text_hash
from presence_ds.data.streaming.stream import LaneSample
from presence_ds.data.tokenizer.encoding import encode
from tests.data.samples.samples import check_documents
from tests.data.streaming.streams import LENGTH, PACKINGS, SHORT, MakeConfig, group_of, take, the_state


@pytest.mark.parametrize("packing", PACKINGS)
def test_samples_are_the_text_they_say(
    packing: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase, texts: dict[str, str]
) -> None:
    """From a token of a document on; of longer documents, which go on in another sample, and of shorter ones."""
    config = make(packing=packing)
    tokens = {key: [*encode(tokenizer, [text])[0], tokenizer.eos_token_id] for key, text in texts.items()}
    offsets = set()
    for source, document, offset, ids in take(group_of(config, tokenizer, 2), 100):
        assert document[0] == "ab"[source]
        expected = tokens[document][offset:]
        own = [id_ for id_ in ids if id_ != tokenizer.pad_token_id]
        length = min(len(own), len(expected))
        assert own[:length] == expected[:length]
        assert length == len(own) or packing != "document"
        offsets.add(offset)
    assert len(offsets) > 2


def test_concat_leaves_no_token_out(
    make: MakeConfig, tokenizer: PreTrainedTokenizerBase, texts: dict[str, str]
) -> None:
    """On a lane whose samples are not shuffled, as blocks have one each: the documents of one epoch after the other."""
    config = make(
        sources=[SourceConfig("b", make().sources[1].path, id_field="id")],
        streaming=StreamingConfig(lanes=2, buffer_samples=1),
    )
    group = group_of(config, tokenizer, 2, 1)
    taken = take(group, 30)
    taken += take(group_of(config, tokenizer, 1, 1, the_state(group)), 140)
    for lane in (0, 1):
        ids = [id_ for *_, row in taken[lane::2] for id_ in row]
        ends = [index for index, id_ in enumerate(ids) if id_ == tokenizer.eos_token_id]
        found = [tokenizer.decode(ids[begin + 1 : end]) for begin, end in pairwise([-1, *ends])]
        size = len(set(found))
        assert len(found) > 2 * size
        assert set(found) <= set(texts.values())
        for start in range(0, len(found) - size + 1, size):
            assert len(set(found[start : start + size])) == size


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_documents_are_kept_apart(packing: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    (group,) = group_of(make(packing=packing, document_mask=True), tokenizer)
    assert sum(check_documents(next(group), tokenizer.eos_token_id) for _ in range(40)) > 20


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_pieces_are_where_they_say(
    packing: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase, texts: dict[str, str]
) -> None:
    """Also where a block of documents begins in the middle of one."""
    config = make(packing=packing)
    (group,) = group_of(config, tokenizer)
    tokens = {key: [*encode(tokenizer, [text])[0], tokenizer.eos_token_id] for key, text in texts.items()}
    for item in islice(group._samples, 100):
        assert isinstance(item, LaneSample)
        expected = [token for id_, offset, size in item.sample.pieces for token in tokens[id_][offset:][:size]]
        assert item.sample.input_ids.tolist() == expected
        assert item.sample.pieces[0][:2] == (item.sample.document_id, item.sample.offset)


def test_every_document_comes_as_often_as_the_others(
    make: MakeConfig, tokenizer: PreTrainedTokenizerBase, texts: dict[str, str]
) -> None:
    """On its lane, over ranks, workers and a resume, to within the samples that are shuffled together."""
    short = [SourceConfig("b", make().sources[1].path, id_field="id")]
    config = make(sources=short, packing="document")
    first = group_of(config, tokenizer, 2)
    taken = take(first, 40)
    config.num_workers = 2
    taken += take(group_of(config, tokenizer, 1, state=the_state(first)), 70)
    lanes: dict[int, list[str]] = defaultdict(list)
    for position, (_, document, _, _) in enumerate(taken):
        lanes[position % 4].append(document)
    assert sorted(chain.from_iterable(map(set, lanes.values()))) == sorted(key for key in texts if key[0] == "b")
    for documents in lanes.values():
        size = len(set(documents))
        for end in range(1, len(documents) + 1):
            counts = Counter(documents[:end])
            held = 3 * LENGTH // SHORT
            assert (end - held) // size <= min(counts[document] for document in set(documents))
            assert max(counts.values()) <= -(-(end + held) // size)


def test_sources_have_their_shares(make: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """On every lane after every block of 1,024 samples to within one sample."""
    config = make(streaming=StreamingConfig(lanes=2, buffer_samples=3))
    taken = take(group_of(config, tokenizer, 1, 64), 32)
    for lane in (0, 1):
        assert abs(Counter(source for source, *_ in taken[lane::2])[0] - 768) <= 1
    assert [source for source, *_ in taken[0::2]] != [source for source, *_ in taken[1::2]]


def test_epochs_are_counted(make: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    config = make(packing="document")
    (batches,) = group_of(config, tokenizer)
    assert batches.source_epochs == {"a": 0.0, "b": 0.0}
    documents: Counter[str] = Counter()
    while min(batches.source_epochs.values()) < 3:
        documents.update(next(batches)["document_ids"])
    assert 3 <= min(batches.source_epochs.values()) < 3.5
    assert len(documents) == 160
    first, second = group_of(config, tokenizer, 2, state=the_state([batches]))
    assert min(first.source_epochs["b"], second.source_epochs["b"]) == batches.source_epochs["b"]
    for _ in range(100):
        next(first)
    assert first.source_epochs["b"] > second.source_epochs["b"]  # a rank knows its own lanes


def test_texts_of_validation_are_left_out(
    make: MakeConfig, tokenizer: PreTrainedTokenizerBase, texts: dict[str, str]
) -> None:
    held = [key for key in texts if key[0] == "b"][::3]
    config = make(packing="document")
    hashes = frozenset(text_hash(texts[key]) for key in held)
    taken = take(group_of(config, tokenizer, validation_texts=hashes), 300)
    assert {document for _, document, _, _ in taken} == set(texts) - set(held)


def test_what_is_prepared_is_validation_and_the_tokenizer(
    make: MakeConfig, tmp_path: Path, texts: dict[str, str]
) -> None:
    validation = tmp_path / "validation.jsonl"
    rows = [json.dumps({"id": key, "text": texts[key]}) + "\n" for key in list(texts)[:20]]
    validation.write_text("".join(rows))
    fields = {"validation_fraction": 0.01, "validation_sources": [SourceConfig("dev", str(validation), id_field="id")]}
    config = make(**fields, tokenizer=TokenizerConfig(vocab_size=300))
    prepare_corpus(config, tmp_path / "corpus")
    corpus = open_corpus(tmp_path / "corpus")
    assert len(corpus.train) == 0
    assert corpus.source_names == ["a", "b", "dev"]
    assert set(corpus.validation.rows["document_id"]) == set(list(texts)[:20])
    assert corpus.validation_texts == {text_hash(texts[key]) for key in list(texts)[:20]}
    assert len(corpus.tokenizer) == 300
    config.streaming.tokenizer_megabytes = 0.001
    prepare_corpus(config, tmp_path / "corpus")
    assert open_corpus(tmp_path / "corpus").tokenizer.get_vocab() != corpus.tokenizer.get_vocab()
    alone = make(tokenizer=TokenizerConfig(vocab_size=300))
    prepare_corpus(alone, tmp_path / "alone")
    assert len(open_corpus(tmp_path / "alone").validation) == 0
    assert open_corpus(tmp_path / "alone").validation_texts == frozenset()
