"""Streamed samples: one order on any ranks and workers, that goes on from any batch, and what is not streamed."""

import gzip
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from presence_ds.data import (
    DataConfig,
    NoiseConfig,
    ObjectiveConfig,
    RankSamples,
    SourceConfig,
    Stream,
    StreamedBatches,
    StreamingConfig,
    TokenizerConfig,
    open_corpus,
    prepare_corpus,
)
from presence_ds.data.corpus.hashing import text_hash
from presence_ds.data.samples.objective import make_objective
from presence_ds.data.sources.sources import find_files
from presence_ds.data.streaming.lane import TOKENIZED_DOCUMENTS
from presence_ds.data.tokenizer.tokenizer import encode, train_tokenizer
from presence_ds.errors import ConfigError, DataError
from tests.data.conftest import make_text

LENGTH = 32
SHORT = 10  # documents are shorter than a sample
MakeConfig = Callable[..., DataConfig]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(TokenizerConfig(vocab_size=500), [make_text(number) for number in range(100)], 10)


@pytest.fixture(scope="module")
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


States = list[dict[str, Any]]  # of every rank


def group_of(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    ranks: int = 1,
    micro_batch_size: int = 4,
    state: States | None = None,
    validation_texts: frozenset[bytes] = frozenset(),
) -> list[StreamedBatches]:
    """The batches of every rank, from ``state`` on."""
    assert config.sequence_length is not None
    assert config.packing is not None
    files = [find_files(source, streamed=True) for source in config.sources]
    group = []
    for rank in range(ranks):
        stream = Stream(config, files, tokenizer, validation_texts)
        objective = make_objective(
            config.objective, config.sequence_length, config.packing, tokenizer, config.seed, "train"
        )
        group.append(StreamedBatches(RankSamples(stream, rank, ranks), objective, micro_batch_size, config.num_workers))
    if state is not None:
        own = state if len(state) == ranks else group[0].divide(iter(state), ranks)
        for batches, of_rank in zip(group, own, strict=True):
            batches.load_state_dict(of_rank)
    return group


Key = tuple[int, str, int, tuple[int, ...]]


def take(group: list[StreamedBatches], micro_steps: int) -> list[Key]:
    """The samples of so many micro-steps of every rank in the order of the run."""
    taken = []
    for _ in range(micro_steps):
        batches = [next(batches) for batches in group]
        names = ("source_ids", "document_ids", "offsets", "input_ids")
        rows = [list(zip(*(batch[name] for name in names), strict=True)) for batch in batches]
        for of_position in chain.from_iterable(zip(*rows, strict=True)):  # ranks take positions in turn
            source, document, offset, ids = of_position
            taken.append((int(source), document, int(offset), tuple(ids.tolist())))
    return taken


def the_state(group: list[StreamedBatches]) -> States:
    """What a checkpoint holds, as it comes back from files: of each rank its own lanes."""
    state = [batches.state_dict() for batches in group]
    for batches, of_rank in zip(group, state, strict=True):
        assert all(batches._samples.has_lane(number) for number in of_rank["lanes"])
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


PACKINGS = ["concat", "document", "best_fit"]


@pytest.mark.parametrize("packing", PACKINGS)
def test_one_order_over_changes_of_ranks_and_micro_batches(
    packing: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Also on numbers of ranks that do not divide the lanes, where lanes are shared."""
    config = make(packing=packing)
    expected = take(group_of(config, tokenizer), 200)
    taken, state = [], None
    for ranks, micro_batch_size, micro_steps in ((2, 3, 5), (4, 1, 11), (1, 7, 9), (3, 2, 10), (4, 5, 4), (2, 4, 30)):
        group = group_of(config, tokenizer, ranks, micro_batch_size, state)
        taken += take(group, micro_steps)
        state = the_state(group)
        assert state[0]["position"] == len(taken)
    assert taken == expected[: len(taken)]
    assert len(set(taken)) > 100


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_one_order_while_workers_read_ahead(
    num_workers: int, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    expected = take(group_of(make(), tokenizer), 40)
    config = make(num_workers=num_workers)
    first = group_of(config, tokenizer, 2, 3)
    taken = take(first, 7)
    second = group_of(config, tokenizer, 1, 4, the_state(first))
    assert taken + take(second, 20) == expected[: 42 + 80]


@pytest.mark.parametrize("packing", PACKINGS)
def test_resuming_at_any_batch_gives_the_same_rest(
    packing: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = make(packing=packing)
    expected = take(group_of(config, tokenizer, 1, 1), 130)
    (batches,) = group_of(config, tokenizer, 1, 1)
    for taken in range(100):
        if taken % 7 == 0:
            assert take(group_of(config, tokenizer, 1, 1, the_state([batches])), 20) == expected[taken : taken + 20]
        next(batches)


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
    assert (batches.epoch, batches.source_epochs) == (0, {"a": 0.0, "b": 0.0})
    documents: Counter[str] = Counter()
    while batches.epoch < 3:
        documents.update(next(batches)["document_ids"])
    assert 3 <= min(batches.source_epochs.values()) < 3.5
    assert len(documents) == 160
    first, second = group_of(config, tokenizer, 2, state=the_state([batches]))
    assert min(first.source_epochs["b"], second.source_epochs["b"]) == batches.source_epochs["b"]
    for _ in range(100):
        next(first)
    assert first.source_epochs["b"] > second.source_epochs["b"]  # a rank knows its own lanes


def test_a_resume_reads_what_is_held_and_no_more(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Late in a file of 5,000 rows it reads the rows of one buffer for each lane, and those tokenized with them."""
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for number in range(5_000):
            file.write(json.dumps({"text": f"{make_text(number % 50)} {number}"}) + "\n")
    config = DataConfig(
        sources=[SourceConfig("long", str(path))],
        streaming=StreamingConfig(lanes=2, buffer_samples=20),
        validation_fraction=0.0,
        sequence_length=LENGTH,
    )
    config.validate()
    (batches,) = group_of(config, tokenizer, micro_batch_size=100)
    rows = batches._samples.stream.tallies[0]
    while rows.rows < 4_000:
        next(batches)
    (resumed,) = group_of(config, tokenizer, micro_batch_size=100)
    state = batches.state_dict()
    resumed.load_state_dict(state)
    assert torch.equal(next(resumed)["input_ids"], next(batches)["input_ids"])
    assert resumed._samples.stream.tallies[0].rows <= 2 * (20 + TOKENIZED_DOCUMENTS)
    assert len(json.dumps(state)) < 1000


def test_spans_differ_in_every_epoch_and_not_between_ranks(
    make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = make(objective=ObjectiveConfig("span_corruption"))
    one, two = group_of(config, tokenizer, 1, 6), group_of(config, tokenizer, 2, 3)
    inputs = defaultdict(set)
    for _ in range(150):
        (whole,), halves = [next(batches) for batches in one], [next(batches) for batches in two]
        for name in ("input_ids", "labels"):
            assert torch.equal(torch.stack([half[name] for half in halves], 1).flatten(0, 1), whole[name])
        samples = zip(whole["document_ids"], whole["offsets"].tolist(), whole["input_ids"].tolist(), strict=True)
        for document, offset, ids in samples:
            inputs[document, offset].add(tuple(ids))
    assert max(len(found) for found in inputs.values()) > 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 6}, "seed = 5 and this run has 6"),
        ({"packing": "document"}, "packing = concat and this run has document"),
        ({"streaming": StreamingConfig(lanes=2, buffer_samples=3)}, "streaming = .*4.* and this run has .*2"),
    ],
)
def test_the_state_of_another_order_is_refused(
    fields: dict[str, Any], message: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    state = the_state(group_of(make(), tokenizer))
    with pytest.raises(DataError, match=message):
        group_of(make(**fields), tokenizer, state=state)


def test_the_state_on_other_text_is_refused(make: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    config = make()
    state = the_state(group_of(config, tokenizer))
    other = train_tokenizer(TokenizerConfig(vocab_size=400), ["another text"] * 9)
    with pytest.raises(DataError, match="digest of the tokenizer"):
        group_of(config, other, state=state)
    with Path(str(config.sources[1].path)).open("a") as more:
        more.write('{"id": "c", "text": "one more"}\n')
    with pytest.raises(DataError, match="digest of the files"):
        group_of(config, tokenizer, state=state)


REFUSED = {
    "lanes": ({"streaming": StreamingConfig(lanes=0)}, "data.streaming.lanes is 0: it must be at least 1"),
    "buffer": ({"streaming": StreamingConfig(buffer_samples=0)}, "data.streaming.buffer_samples is 0"),
    "tokenizer": ({"streaming": StreamingConfig(tokenizer_megabytes=0)}, "data.streaming.tokenizer_megabytes is 0"),
    "prepared": ({"prepared": "folder"}, "data.prepared is folder with data.streaming: it must be null"),
    "noise": ({"noise": NoiseConfig()}, "data.noise is .* with data.streaming: it must be null"),
    "held out": ({"validation_fraction": 0.01}, "data.validation_fraction is 0.01 with data.streaming"),
    "weights": (
        {"sources": [SourceConfig("a", "a"), SourceConfig("b", "b")]},
        r"data.sources\[0\].weight is not set with data.streaming",
    ),
    "packages": (
        {"sources": [SourceConfig("a", format="python_packages")]},
        r"data.sources\[0\].format is python_packages with data.streaming",
    ),
    "limit": ({"sources": [SourceConfig("a", "a", max_megabytes=3)]}, "max_megabytes is 3 with data.streaming"),
    "minimum": ({"sources": [SourceConfig("a", "a", min_megabytes=3)]}, "min_megabytes is 3 with data.streaming"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_not_streamed_is_refused(case: str, make: MakeConfig) -> None:
    fields, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        make(**fields)


def test_bad_rows_are_skipped_up_to_their_share(
    make: MakeConfig, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(str(make().sources[1].path))
    with path.open("a") as file:
        file.write('{"id": "bad"}\n' * 7)
    source = [SourceConfig("b", str(path), id_field="id")]
    take(group_of(make(sources=source, max_bad_share=0.2), tokenizer), 20)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 5
    assert "presence: warning: skipped" in warnings[0]
    assert 'field "text" is missing or null' in warnings[0]
    with pytest.raises(DataError, match=r"rows cannot be used, more than max_bad_share 0.01 allows; the first is"):
        take(group_of(make(sources=source), tokenizer), 20)


def test_a_wrong_field_is_found_at_once(make: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    source = [SourceConfig("b", make().sources[1].path, text_field="body")]
    (batches,) = group_of(make(sources=source, max_bad_share=1.0), tokenizer)
    with pytest.raises(DataError, match=r'rows can be used; the first is .* field "body" is missing or null'):
        batches.prime()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_file_stops_or_is_left_out(
    num_workers: int, make: MakeConfig, tokenizer: PreTrainedTokenizerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(str(make().sources[0].path))
    whole = gzip.compress((folder / "1.jsonl").read_bytes())
    (folder / "1.jsonl").unlink()
    (folder / "1.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    source = [SourceConfig("a", str(folder), id_field="id")]
    message = r"1.jsonl.gz cannot be read as a file: it ends in the middle of its compressed data \(\d+ good rows"
    (batches,) = group_of(make(sources=source, num_workers=num_workers), tokenizer)
    with pytest.raises(DataError, match=message):
        take([batches], 300)
    skipping = make(sources=source, on_bad_file="skip", num_workers=num_workers)
    taken = take(group_of(skipping, tokenizer), 300)
    parts = Counter(int(document[1:]) % 3 for _, document, _, _ in taken)
    assert 0 < parts[1] < min(parts[0], parts[2])
    assert "presence: warning: left out" in capfd.readouterr().err


def test_sources_without_text_are_refused(make: MakeConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "one.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "bad.jsonl.gz").write_bytes(b"")
    for name, on_bad_file, message in (
        ("empty.jsonl", "stop", 'source "s" has no document on one of the lanes: give it more text, or lower data.str'),
        ("one.jsonl", "stop", 'source "s" has no document on one of the lanes'),
        ("bad.jsonl.gz", "skip", 'source "s": a lane has no file that can be read; the first that cannot is'),
    ):
        config = make(sources=[SourceConfig("s", str(tmp_path / name))], on_bad_file=on_bad_file)
        (batches,) = group_of(config, tokenizer)
        with pytest.raises(DataError, match=message):
            batches.prime()


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
    assert np.size(open_corpus(tmp_path / "alone").validation_texts) == 1
