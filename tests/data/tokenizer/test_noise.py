"""Noise in token ids: what becomes of each token, and what stays."""

from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.noise import KINDS, shuffle_words
from presence_ds.data.tokenizer.config import TokenizerConfig
from presence_ds.data.tokenizer.encoding import encode, sentinel_ids
from presence_ds.data.tokenizer.noise import ENCODERS, clean, permuted, random, shuffled, text_ids
from presence_ds.data.tokenizer.training import train_tokenizer
from tests.data.conftest import make_text

DOCUMENTS = [Document(f"doc-{number}", make_text(number)) for number in range(300)]
SENTINELS = 4
GOLDEN = {
    ("permuted", 0): [[1, 2, 5, 4, 6, 7, 0, 3], [1, 2, 5, 4, 6, 7, 0, 3]],
    ("permuted", 1): [[6, 0, 4, 5, 7, 2, 3, 1], [6, 0, 4, 5, 7, 2, 3, 1]],
    ("random", 0): [[7, 1, 7, 4, 1, 0, 3, 7], [0, 5, 6, 7, 2, 6, 1, 5]],
    ("random", 1): [[5, 1, 4, 6, 3, 3, 5, 3], [6, 2, 0, 4, 1, 6, 4, 3]],
}
FOREIGN = Document("foreign", "Größe, привет 你好 😀 <|endoftext|> <extra_id_0>")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Of 400 tokens, with BOS before every document, padding and sentinels."""
    texts = (document.text for document in DOCUMENTS)
    return train_tokenizer(TokenizerConfig(vocab_size=400, add_bos=True), texts, SENTINELS)


def words(tokens: list[str]) -> PreTrainedTokenizerBase:
    """A tokenizer of ``tokens``, each a word, and of ``</s>``, with a gap in its ids before that."""
    vocabulary = {token: id_ for id_, token in enumerate(tokens)} | {"</s>": len(tokens) + 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=tokens[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def test_every_kind_has_an_encoder(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tuple(ENCODERS) == KINDS
    for encoder in ENCODERS.values():
        assert encoder(tokenizer, SENTINELS, 0)([]) == []


def test_shuffled_text_is_encoded(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [shuffle_words(document.text, 5, document.id) for document in DOCUMENTS]
    assert shuffled(tokenizer, SENTINELS, 5)(DOCUMENTS) == encode(tokenizer, texts)


def test_permuted_is_one_bijection_without_a_fixed_point(tokenizer: PreTrainedTokenizerBase) -> None:
    """On the ids of text; BOS, the only special token of a document, stays."""
    documents = [*DOCUMENTS, FOREIGN]
    becomes: dict[int, int] = {}
    for batch in (documents[:7], documents[7:]):
        before, after = clean(tokenizer)(batch), permuted(tokenizer, SENTINELS, 0)(batch)
        for old, new in zip(before, after, strict=True):
            assert len(old) == len(new)
            assert old[0] == new[0] == tokenizer.bos_token_id
            for token, instead in zip(old[1:], new[1:], strict=True):
                assert becomes.setdefault(token, int(instead)) == instead
    assert len(becomes) > 100
    assert len(set(becomes.values())) == len(becomes)
    assert all(token != instead for token, instead in becomes.items())
    assert set(becomes.values()) <= set(text_ids(tokenizer, SENTINELS).tolist())


def test_the_whole_vocabulary_is_permuted() -> None:
    """Every id of text is hit once, and one beyond a gap too, though not the gap and not EOS."""
    tokenizer = words([f"w{number}" for number in range(1000)])
    (all_of_them,) = permuted(tokenizer, 0, 0)([Document("a", " ".join(f"w{number}" for number in range(1000)))])
    assert sorted(all_of_them) == list(range(1000))


def test_special_tokens_are_no_text(tokenizer: PreTrainedTokenizerBase) -> None:
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    special += sentinel_ids(tokenizer, SENTINELS)
    assert len(set(special)) == 3 + SENTINELS
    assert set(text_ids(tokenizer, SENTINELS)) == set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    assert not set(text_ids(tokenizer, SENTINELS)) & set(special)


def test_sentinels_that_are_words_to_the_tokenizer_are_no_text() -> None:
    """As mT5 has them; those that the objective uses."""
    tokenizer = words(["a", "\u2581<extra_id_0>", "\u2581<extra_id_1>", "b"])
    assert text_ids(tokenizer, 1).tolist() == [0, 2, 3]
    assert text_ids(tokenizer, 0).tolist() == [0, 1, 2, 3]


def test_added_special_tokens_are_no_text() -> None:
    tokenizer = words(["a", "b"])
    tokenizer.add_tokens(["c"])
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    assert tokenizer.convert_ids_to_tokens(text_ids(tokenizer, 0)) == ["a", "b", "c"]


def test_random_tokens_are_drawn_evenly_and_independently(tokenizer: PreTrainedTokenizerBase) -> None:
    """A token says nothing of the next one, nor of what stood in its place."""
    before, after = clean(tokenizer)(DOCUMENTS), random(tokenizer, SENTINELS, 0)(DOCUMENTS)
    ids = text_ids(tokenizer, SENTINELS)
    place = {id_: index for index, id_ in enumerate(ids.tolist())}
    drawn = []
    for old, new in zip(before, after, strict=True):
        assert len(old) == len(new)
        assert new[0] == tokenizer.bos_token_id
        drawn.append(np.array([place[token] for token in np.array(new[1:]).tolist()]))
    counts = np.bincount(np.concatenate(drawn), minlength=len(ids))
    assert chi_square(counts) < limit(len(ids))
    eighths = [tokens * 8 // len(ids) for tokens in drawn]
    pairs = Counter(pair for row in eighths for pair in zip(row[:-1].tolist(), row[1:].tolist(), strict=True))
    assert chi_square(np.array([pairs[a, b] for a in range(8) for b in range(8)])) < limit(64)
    olds, news = np.concatenate([row[1:] for row in before]), np.concatenate(drawn)
    common = np.bincount(olds).argmax()
    assert chi_square(np.bincount(news[olds == common] * 8 // len(ids), minlength=8)) < limit(8)


def chi_square(counts: np.ndarray) -> float:
    """Of counts that are all as likely."""
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def limit(cells: int) -> float:
    """About what chance exceeds once in 10^9 (Wilson and Hilferty)."""
    degrees = cells - 1
    return degrees * (1 - 2 / (9 * degrees) + 6 * (2 / (9 * degrees)) ** 0.5) ** 3


def test_noise_depends_on_the_seed_and_random_on_the_document() -> None:
    """And on nothing else: these are the ids on every machine, with every version."""
    tokenizer = words(list("abcdefgh"))
    one, other = Document("one", "a b c d e f g h"), Document("other", "a b c d e f g h")
    found = {
        (make.__name__, seed): [tokens.tolist() for tokens in map(np.array, make(tokenizer, 0, seed)([one, other]))]
        for make in (permuted, random)
        for seed in (0, 1)
    }
    assert found == GOLDEN
