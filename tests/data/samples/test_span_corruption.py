"""T5's span corruption: lengths, sentinels, what is drawn, and what that depends on."""

import json
from collections import Counter
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from presence_ds.data import (
    BatchStream,
    Corpus,
    DataConfig,
    ObjectiveConfig,
    SourceConfig,
    TokenizerConfig,
    build_evaluation_loader,
    build_loader,
    open_corpus,
    prepare_corpus,
)
from presence_ds.data.samples.objective_config import Lengths, fit_spans, lengths_of
from presence_ds.data.samples.span_corruption import SpanCorruption
from presence_ds.data.tokenizer.config import MIN_SENTINELS
from presence_ds.data.tokenizer.encoding import encode, sentinel_ids
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import ConfigError, DataError
from tests.data.conftest import make_text

MakeConfig = Callable[..., DataConfig]
EOS, FIRST_SENTINEL = 1, 10_000


def corruption(lengths: Lengths, seed: int = 0, part: str = "train") -> SpanCorruption:
    return SpanCorruption(lengths, list(range(FIRST_SENTINEL, FIRST_SENTINEL + lengths.spans)), EOS, seed, part)


def rows(lengths: Lengths, count: int) -> dict[str, Any]:
    """Tokens 100, 101, ... in every row, so that a token is its place."""
    return {"input_ids": np.tile(np.arange(100, 100 + lengths.row, dtype=np.int32), (count, 1))}


def test_the_papers_lengths() -> None:
    """mT5 as PRESENCE trains it: 229 targets of 1,024 inputs, 1024 · 229 = 234,496; and T5's own 512 and 114."""
    assert ObjectiveConfig("span_corruption").lengths(1024) == Lengths(1137, 1024, 229, noise=171, spans=57)
    assert 1024 * ObjectiveConfig("span_corruption").lengths(1024).targets == 234_496
    assert ObjectiveConfig("span_corruption").lengths(512) == Lengths(568, 512, 114, noise=85, spans=28)
    assert ObjectiveConfig().lengths(1024) == Lengths(1024, 1024, 1024)


def t5_random_spans_helper(inputs_length: int, noise_density: float, mean_length: float) -> tuple[int, int]:
    """`random_spans_helper` of google-research/text-to-text-transfer-transformer, without its special case of 0.5.

    With one span at least, which it leaves to `random_spans_noise_mask`.
    """

    def lengths(tokens_length: int) -> tuple[int, int]:
        num_noise_tokens = round(tokens_length * noise_density)
        num_nonnoise_tokens = tokens_length - num_noise_tokens
        num_noise_spans = max(round(num_noise_tokens / mean_length), 1)
        return num_nonnoise_tokens + num_noise_spans + 1, num_noise_tokens + num_noise_spans + 1

    tokens_length = inputs_length
    while lengths(tokens_length + 1)[0] <= inputs_length:
        tokens_length += 1
    return tokens_length, lengths(tokens_length)[1]


@given(st.integers(32, 4000), st.floats(0.1, 0.5), st.floats(1.5, 10))
def test_lengths_are_those_of_t5(inputs: int, density: float, mean: float) -> None:
    lengths = fit_spans(inputs, density, mean)
    assert (lengths.row, lengths.targets) == t5_random_spans_helper(inputs, density, mean)
    assert lengths.inputs == inputs


@given(st.integers(12, 300), st.floats(0.05, 0.6), st.floats(1, 8), st.integers(0, 2**40))
def test_inputs_and_targets_make_the_tokens_again(inputs: int, density: float, mean: float, draw: int) -> None:
    """Sentinels in order, each where a span was and before it, EOS last: put back, the spans give the row."""
    lengths = fit_spans(inputs, density, mean)
    if lengths.spans > min(lengths.noise, lengths.row - lengths.noise):
        with pytest.raises(ConfigError, match="leaves no text between the spans"):
            ObjectiveConfig("span_corruption", density, mean).validate("objective", inputs)
        return
    batch = corruption(lengths)(rows(lengths, 3), np.array([draw, draw + 1, draw + 2]))
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["input_ids"].shape == (3, lengths.inputs)
    assert batch["labels"].shape == (3, lengths.targets)
    sentinels = list(range(FIRST_SENTINEL, FIRST_SENTINEL + lengths.spans))
    for left, cut_out in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        assert left.pop() == cut_out.pop() == EOS
        assert left[0] < FIRST_SENTINEL
        assert left[-1] == sentinels[-1]
        assert [token for token in left if token >= FIRST_SENTINEL] == sentinels
        assert [token for token in cut_out if token >= FIRST_SENTINEL] == sentinels
        starts = [*(cut_out.index(sentinel) for sentinel in sentinels), len(cut_out)]
        of_sentinel = {s: cut_out[starts[i] + 1 : starts[i + 1]] for i, s in enumerate(sentinels)}
        assert all(of_sentinel.values())
        whole = [token for kept in left for token in of_sentinel.get(kept, [kept])]
        assert whole == rows(lengths, 1)["input_ids"][0].tolist()


def test_every_division_into_spans_is_as_likely() -> None:
    """4 spans of 9 tokens: each of the C(8, 3) divisions about as often, also of what lies between them."""
    lengths = lengths_of(21, 9 / 21, 9 / 4)
    assert (lengths.noise, lengths.spans) == (9, 4)
    number = 56 * 400
    labels = corruption(lengths)(rows(lengths, number), np.arange(number))["labels"].numpy()
    found: dict[str, Counter[tuple[int, ...]]] = {"spans": Counter(), "between": Counter()}
    for row in labels.tolist():
        starts = [row.index(FIRST_SENTINEL + index) for index in range(4)] + [len(row) - 1]
        found["spans"][tuple(int(n) - 1 for n in np.diff(starts))] += 1
        firsts = [row[start + 1] for start in starts[:-1]]
        ends = [100] + [row[start - 1] + 1 for start in starts[1:-1]]
        found["between"][tuple(first - end for first, end in zip(firsts, ends, strict=True))] += 1
    for counts, divisions in ((found["spans"], comb(8, 3)), (found["between"], comb(11, 3))):
        assert len(counts) == divisions
        expected = number / divisions
        chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
        assert abs(chi_square - (divisions - 1)) < 5 * (2 * (divisions - 1)) ** 0.5


def test_a_draw_decides_alone() -> None:
    lengths = fit_spans(64, 0.15, 3.0)
    draws = np.arange(40)
    labels = corruption(lengths)(rows(lengths, 40), draws)["labels"]
    turned = corruption(lengths)(rows(lengths, 40), draws[::-1])["labels"]
    assert torch.equal(turned.flip(0), labels)
    assert torch.equal(corruption(lengths)(rows(lengths, 1), draws[7:8])["labels"][0], labels[7])
    assert len({tuple(row) for row in labels.tolist()}) == 40
    for other in (corruption(lengths, seed=1), corruption(lengths, part="validation")):
        assert (other(rows(lengths, 40), draws)["labels"] == labels).all(1).sum() == 0


@pytest.fixture(scope="module")
def corpus_and_seed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Corpus]:
    """A prepared corpus with span corruption, opened with a seed."""
    folder = tmp_path_factory.mktemp("spans")
    lines = [{"id": f"d{n}", "text": make_text(n)} for n in range(60)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = DataConfig(
        sources=[SourceConfig("docs", str(folder / "docs.jsonl"), id_field="id")],
        validation_fraction=0.2,
        sequence_length=48,
        objective=ObjectiveConfig("span_corruption"),
        tokenizer=TokenizerConfig(vocab_size=500),
    )
    prepare_corpus(config, folder / "corpus")
    return lambda seed: open_corpus(folder / "corpus", seed=seed)


def test_samples_are_rows_corrupted(corpus_and_seed: Callable[[int], Corpus]) -> None:
    """A stored row is what its inputs and targets are of, and its place in its document stays right."""
    corpus = corpus_and_seed(0)
    lengths = ObjectiveConfig("span_corruption").lengths(48)
    assert corpus.report.sequence_length == lengths.row > 48
    sentinels = set(sentinel_ids(corpus.tokenizer, 100))
    eos = corpus.tokenizer.eos_token_id
    for index in range(len(corpus.train)):
        sample, row = corpus.train[index], corpus.train.rows[index]
        assert set(sample) == {"input_ids", "labels", "source_ids", "document_ids", "offsets"}
        assert (len(sample["input_ids"]), len(sample["labels"])) == (48, lengths.targets)
        assert sample["input_ids"][-1] == sample["labels"][-1] == eos
        parts = [*sample["input_ids"].tolist()[:-1], *sample["labels"].tolist()[:-1]]
        assert sorted(token for token in parts if token not in sentinels) == sorted(row["input_ids"])
        assert (sample["document_ids"], sample["offsets"]) == (row["document_id"], row["offset"])


def take(corpus: Corpus, ranks: int, micro_batch_size: int, samples: int, **options: Any) -> dict[Any, list[Any]]:
    """What ``samples`` samples over the ranks make of each row, in the order read."""
    streams = [
        BatchStream(
            build_loader(corpus.train, micro_batch_size=micro_batch_size, rank=rank, world_size=ranks, **options)
        )
        for rank in range(ranks)
    ]
    found: dict[Any, list[Any]] = {}
    for step in range(samples // (ranks * micro_batch_size)):
        if step == 2:  # a resume
            for stream in streams:
                stream.load_state_dict(json.loads(json.dumps(stream.state_dict())))
        for stream in streams:
            batch = next(stream)
            names = zip(batch["document_ids"], batch["offsets"].tolist(), strict=True)
            for name, inputs, labels in zip(names, batch["input_ids"], batch["labels"], strict=True):
                found.setdefault(name, []).append((inputs.tolist(), labels.tolist()))
    return found


@pytest.mark.parametrize("weights", [None, {"docs": 1.0}])
def test_ranks_workers_and_resumes_change_nothing_and_epochs_do(
    corpus_and_seed: Callable[[int], Corpus], weights: dict[str, float] | None
) -> None:
    corpus = corpus_and_seed(0)
    options: dict[str, Any] = {"weights": weights, "source_names": corpus.source_names}
    samples = 3 * len(corpus.train) // 24 * 24
    alone = take(corpus, 1, 4, samples, **options)
    assert max(map(len, alone.values())) == 3
    assert all(len({json.dumps(one) for one in read}) == len(read) for read in alone.values())
    assert take(corpus, 3, 2, samples, **options) == alone
    assert take(corpus, 2, 4, samples, num_workers=2, **options) == alone
    assert take(corpus_and_seed(1), 1, 4, samples, **options) != alone


def test_validation_is_the_same_every_time(corpus_and_seed: Callable[[int], Corpus]) -> None:
    """Rows past the end have no labels, as for other objectives."""
    corpus = corpus_and_seed(0)
    loader = build_evaluation_loader(corpus.validation, micro_batch_size=4, rank=0, world_size=1)
    first, again = ([(b["input_ids"], b["labels"]) for b in loader] for _ in range(2))
    for ours, theirs in zip(first, again, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    empty = torch.cat([labels for _, labels in first]).eq(-100).all(1).sum()
    assert empty == -len(corpus.validation) % 4


def test_a_trained_tokenizer_has_sentinels() -> None:
    """Their ids follow EOS and padding in order, text that spells one is text, and there are 100 at least."""
    for needed, there in ((3, MIN_SENTINELS), (130, 130)):
        tokenizer = train_tokenizer(TokenizerConfig(vocab_size=500), ["some words to learn from"] * 20, needed)
        assert sentinel_ids(tokenizer, needed) == list(range(2, 2 + needed))
        with pytest.raises(DataError, match=f"no <extra_id_{there}>, and span corruption needs {there + 1} sentinels"):
            sentinel_ids(tokenizer, there + 1)
        assert tokenizer.pad_token_id == 1
        assert tokenizer.decode([2, 1], skip_special_tokens=True) == ""
    (ids,) = encode(tokenizer, ["a <extra_id_0> b"])
    assert 2 not in ids
    assert tokenizer.decode(ids) == "a <extra_id_0> b"
    plain = train_tokenizer(TokenizerConfig(vocab_size=300), ["some words to learn from"] * 20)
    assert "<extra_id_0>" not in plain.get_vocab()


def test_sentinels_of_a_loaded_tokenizer(make_config: MakeConfig, tmp_path: Path) -> None:
    """As T5 and as mT5 write them, in descending order; without them nothing is read."""

    def save(name: str, sentinels: list[str]) -> str:
        vocabulary = {token: index for index, token in enumerate(["</s>", "a", *sentinels])}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    few = save("few", ["<extra_id_1>", "<extra_id_0>"])
    config = make_config(tokenizer=TokenizerConfig(path=few), objective=ObjectiveConfig("span_corruption"))
    (tmp_path / "docs.jsonl").write_text("nothing that can be read")
    with pytest.raises(DataError, match=r"has no <extra_id_2>, and span corruption needs 3 sentinels"):
        prepare_corpus(config, tmp_path / "corpus")
    for name, mark in (("t5", ""), ("mt5", "▁")):
        path = save(name, [f"{mark}<extra_id_{index}>" for index in range(99, -1, -1)])
        assert sentinel_ids(AutoTokenizer.from_pretrained(path), 4) == [101, 100, 99, 98]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": ObjectiveConfig(noise_density=1.0)}, "data.objective.noise_density is 1.0"),
        ({"objective": ObjectiveConfig(mean_span_length=0.5)}, "data.objective.mean_span_length is 0.5"),
        (
            {"objective": ObjectiveConfig("span_corruption", noise_density=0.9)},
            "data.objective.noise_density is 0.9 with mean_span_length 3.0, which leaves no text between the spans",
        ),
        ({"objective": ObjectiveConfig("span_corruption"), "packing": "document"}, "data.packing is document with"),
        (
            {"objective": ObjectiveConfig("span_corruption"), "tokenizer": TokenizerConfig(vocab_size=357)},
            "data.tokenizer.vocab_size is 357: it must be at least 358",
        ),
    ],
)
def test_bad_values_name_their_field(
    make_config: MakeConfig, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**fields).validate()
    assert message in str(caught.value)
