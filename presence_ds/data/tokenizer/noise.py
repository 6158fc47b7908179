"""Documents as the token ids of noise, one encoder for each kind of `NoiseConfig`."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from presence_ds.data.hashing import random_bits, stable_hash
from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.noise import shuffle_words
from presence_ds.data.tokenizer.encoding import document_start, encode, needed_rows, sentinel_ids

Encoder = Callable[[list[Document]], Sequence[list[int] | NDArray[np.int32]]]  # as `encode` makes ids of texts


def text_ids(tokenizer: PreTrainedTokenizerBase, num_sentinels: int) -> NDArray[np.int32]:
    """The ids that text consists of, int32 ascending: all but special tokens and ``num_sentinels`` sentinels."""
    special = {*tokenizer.all_special_ids, *document_start(tokenizer), *sentinel_ids(tokenizer, num_sentinels)}
    special |= {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    return np.array(sorted(set(tokenizer.get_vocab().values()) - special), dtype=np.int32)


def clean(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """Documents as they are."""
    return lambda documents: encode(tokenizer, [document.text for document in documents])


def shuffled(tokenizer: PreTrainedTokenizerBase, num_sentinels: int, seed: int) -> Encoder:
    """The words of each document in another order."""
    return lambda documents: encode(
        tokenizer, [shuffle_words(document.text, seed, document.id) for document in documents]
    )


def permuted(tokenizer: PreTrainedTokenizerBase, num_sentinels: int, seed: int) -> Encoder:
    """Each of `text_ids` becomes the one after it in a circle of them all, in an order that ``seed`` decides."""
    ids = text_ids(tokenizer, num_sentinels)
    circle = ids[np.argsort(random_bits(stable_hash(seed, "permuted", ""), len(ids)))]
    becomes = np.arange(needed_rows(tokenizer), dtype=np.int32)
    becomes[circle] = np.roll(circle, -1)
    encoder = clean(tokenizer)
    return lambda documents: [becomes[np.array(tokens, dtype=np.int32)] for tokens in encoder(documents)]


def random(tokenizer: PreTrainedTokenizerBase, num_sentinels: int, seed: int) -> Encoder:
    """In the place of each of `text_ids` any of them, drawn by ``seed``, document and position."""
    ids = text_ids(tokenizer, num_sentinels)
    is_text = np.isin(np.arange(needed_rows(tokenizer)), ids)
    encoder = clean(tokenizer)

    def drawn(document: Document, tokens: NDArray[np.int32]) -> NDArray[np.int32]:
        bits = random_bits(stable_hash(seed, "random", document.id), len(tokens)) >> np.uint64(32)
        places = (bits * np.uint64(len(ids))) >> np.uint64(32)  # 0 to len(ids) - 1, as bits are 0 to 2**32 - 1
        return np.where(is_text[tokens], ids[places.astype(np.int64)], tokens)

    return lambda documents: [
        drawn(document, np.array(tokens, dtype=np.int32))
        for document, tokens in zip(documents, encoder(documents), strict=True)
    ]


ENCODERS = {"shuffled": shuffled, "permuted": permuted, "random": random}
