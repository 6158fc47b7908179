"""Text to token ids for the estimator study: a tokenizer of its own, packed samples, span corruption."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from presence_ds.data.readers.documents import Document, Fields
from presence_ds.data.readers.json import read_jsonl
from presence_ds.data.readers.part import Part
from presence_ds.data.readers.text import read_text
from presence_ds.data.samples.packing import concat
from presence_ds.data.sources.noise import shuffle_words
from presence_ds.data.sources.python_packages import find_modules, read_modules
from presence_ds.data.tokenizer.config import TokenizerConfig
from presence_ds.data.tokenizer.encoding import encode
from presence_ds.data.tokenizer.training import train_tokenizer

HELD_OUT_EVERY = 5  # documents
SENTINELS = 32  # ids above the tokenizer's, which stand for the spans of an encoder-decoder's inputs
NOISE_SHARE, MEAN_SPAN = 0.15, 3  # of span corruption, as T5 has them


class Texts(NamedTuple):
    """Packed samples, int64 [N, T] each, and the number of tokens that there are, sentinels included.

    ``shuffled`` are the held-out documents with the words of each in another order.
    """

    training: Tensor
    held_out: Tensor
    shuffled: Tensor
    vocabulary: int


def load_texts(paths: list[Path] | None, vocabulary: int, length: int, samples: int, max_megabytes: float) -> Texts:
    """Read jsonl files (field "text") or plain text (a document per paragraph), else the installed packages.

    No more than ``max_megabytes`` are read; every fifth document is held out.

    Raises:
        ValueError: there are fewer than ``samples`` held-out samples of ``length`` tokens.
    """
    documents = list(_limited(_documents(paths, max_megabytes), max_megabytes))
    training = [document for index, document in enumerate(documents) if (index + 1) % HELD_OUT_EVERY]
    held_out = documents[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=vocabulary), (document.text for document in training))
    shuffled = [Document(document.id, shuffle_words(document.text, 0, document.id)) for document in held_out]

    def packed(part: list[Document], count: int | None) -> Tensor:
        tokens = encode(tokenizer, [document.text for document in part])
        ids = ((document.id, ids) for document, ids in zip(part, tokens, strict=True))
        rows = [sample.input_ids for sample in islice(concat(ids, length, tokenizer.eos_token_id), count)]
        if len(rows) < (count or 1):
            raise ValueError(f"{len(rows)} samples of {length} tokens are held out, {samples} needed: give more text")
        return torch.from_numpy(np.stack(rows)).long()

    return Texts(packed(training, None), packed(held_out, samples), packed(shuffled, samples), vocabulary + SENTINELS)


def spoiled(samples: Tensor, vocabulary: int) -> Tensor:
    """``samples`` [N, T], about a quarter with its tokens in another order, and one in a cipher, always the same."""
    generator = torch.Generator().manual_seed(0)
    cipher = torch.randperm(vocabulary, generator=generator)
    kinds = torch.randint(4, (len(samples), 1), generator=generator)
    shuffled = samples.gather(1, torch.rand(samples.shape, generator=generator).argsort(1))
    return torch.where(kinds == 0, shuffled, torch.where(kinds == 1, cipher[samples], samples))


def corrupt_spans(ids: Tensor, vocabulary: int, seed: int) -> dict[str, Tensor]:
    """An encoder-decoder's batch from ids [B, T]: spans of the inputs become sentinels, their tokens the labels.

    The number of noise tokens and spans is the same in every sample, so nothing is padded: input_ids [B, T − n + s],
    labels [B, n + s].
    """
    length = ids.shape[1]
    noise = max(1, round(length * NOISE_SHARE))
    spans = min(max(1, round(noise / MEAN_SPAN)), SENTINELS)
    random = np.random.default_rng(seed)
    inputs, labels = [], []
    for row in ids.tolist():
        cuts = zip(_parts(length - noise, spans, random), _parts(noise, spans, random), strict=True)
        start, kept, removed = 0, [], []
        for span, (clean, noisy) in enumerate(cuts):
            middle, end = start + clean, start + clean + noisy
            sentinel = vocabulary - 1 - span
            kept += [*row[start:middle], sentinel]
            removed += [sentinel, *row[middle:end]]
            start = end
        inputs.append(kept)
        labels.append(removed)
    return {"input_ids": torch.tensor(inputs), "labels": torch.tensor(labels)}


def _parts(total: int, count: int, random: np.random.Generator) -> list[int]:
    """``total`` as a random sum of ``count`` numbers above 0."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=total).tolist()


def _documents(paths: list[Path] | None, max_megabytes: float) -> Iterator[Document]:
    if paths is None:
        yield from read_modules(find_modules(), "docstrings", max_megabytes)
        return
    for path in paths:
        rows = read_jsonl(path, path.name, Fields(), Part()) if ".jsonl" in path.suffixes else None
        for row in rows or read_text(path, path.name, "paragraph", Fields.max_bytes, Part()):
            if isinstance(row, Document):
                yield row


def _limited(documents: Iterator[Document], max_megabytes: float) -> Iterator[Document]:
    seen = 0
    for document in documents:
        seen += len(document.text.encode())
        yield document
        if seen > max_megabytes * 1e6:
            return
