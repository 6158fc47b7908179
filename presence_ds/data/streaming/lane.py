"""Lanes: endless sequences of samples, each of which goes on from a small state."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from presence_ds.data.config import DataConfig
from presence_ds.data.order.mixture import Mixture
from presence_ds.data.readers.documents import Document
from presence_ds.data.readers.part import Place
from presence_ds.data.samples.packing import PACKINGS, PackedSample, Tokens
from presence_ds.data.streaming.documents import Cursor, LaneDocuments
from presence_ds.data.tokenizer.encoding import encode
from presence_ds.errors import DataError

TOKENIZED_DOCUMENTS = 64  # at a time, or
TOKENIZED_CHARACTERS = 1 << 18  # so many


class Text(NamedTuple):
    """A document, or what is left of it.

    Attributes:
        before, after: the places between which it stands.
        tokens: without EOS, and without the first ``skipped`` ones.
    """

    before: Cursor
    after: Cursor
    id: str
    tokens: NDArray[np.int32]
    skipped: int


class Start(NamedTuple):
    """Where a block begins: in the document after ``cursor``, of which ``skipped`` tokens are in the block before."""

    cursor: Cursor = Cursor()
    skipped: int = 0
    block: int = 0


class SourceLane:
    """The samples of one source on one lane.

    Documents are packed in blocks, of as many as fill ``buffer_samples`` samples, and the samples of a block are
    shuffled. Where a block begins and how many of its samples were taken is all that a resume needs. Tokens that
    packing concat has left over begin the next block.

    Args:
        documents: its text.
        tokenizer: what that is tokenized with.
        config: how samples are made.
        first_block: samples of the first block, so that blocks do not end on all lanes at once.
    """

    def __init__(
        self, documents: LaneDocuments, tokenizer: PreTrainedTokenizerBase, config: DataConfig, first_block: int
    ) -> None:
        assert config.streaming is not None
        assert config.packing is not None
        self._documents = documents
        self._tokenizer = tokenizer
        self._packing = config.packing
        self._row_length = config.lengths.row
        self._sizes = (first_block, config.streaming.buffer_samples)
        self._texts: Iterator[Text] | None = None
        self._left: list[Text] = []  # begin the next block
        self._start = self._next = Start()
        self._samples: list[PackedSample] = []
        self._taken = 0

    def __next__(self) -> PackedSample:
        if not self._samples:  # at the beginning of the process
            self._fill()
        if self._taken == len(self._samples):
            self._start, self._taken = self._next, 0
            self._fill()
        self._taken += 1
        return self._samples[self._taken - 1]

    def state(self) -> list[int]:
        """What `load_state` takes to go on after the last sample."""
        is_through = self._samples and self._taken == len(self._samples)
        start, taken = (self._next, 0) if is_through else (self._start, self._taken)
        (epoch, number, place), skipped, block = start
        return [epoch, number, *place, skipped, block, taken]

    def load_state(self, state: list[int]) -> None:
        """Go on where `state` was taken; before the first sample."""
        epoch, number, row, byte, given, skipped, block, self._taken = state
        self._start = Start(Cursor(epoch, number, Place(row, byte, given)), skipped, block)

    def _fill(self) -> None:
        """Read the block that begins at ``_start``."""
        if self._texts is None:
            self._texts = self._tokenized(self._start)
        texts, self._left = self._left, []
        length = sum(len(text.tokens) + 1 for text in texts)
        needed = self._sizes[min(self._start.block, 1)] * self._row_length
        while length < needed:
            texts.append(next(self._texts))
            length += len(texts[-1].tokens) + 1
        documents: Iterator[tuple[str, Tokens]] = ((text.id, text.tokens) for text in texts)
        samples = list(PACKINGS[self._packing](documents, self._row_length, self._tokenizer.eos_token_id))
        if not samples:
            raise DataError(
                f"the tokenizer makes nothing of {len(texts)} documents in a row, the first of which is {texts[0].id}"
            )
        begin_in_first = -(-(len(texts[0].tokens) + 1) // self._row_length)
        for index, sample in enumerate(samples[:begin_in_first]):
            samples[index] = sample.moved(texts[0].skipped)
        cursor, skipped = texts[-1].after, 0
        if self._packing == "concat":
            self._left = _after(texts, len(samples) * self._row_length)
            if self._left:
                cursor, skipped = self._left[0].before, self._left[0].skipped
        self._next = Start(cursor, skipped, self._start.block + 1)
        order = self._documents.permutation(len(samples), "streaming buffer", self._start.block)
        self._samples = [samples[index] for index in order(np.arange(len(samples))).tolist()]

    def _tokenized(self, start: Start) -> Iterator[Text]:
        skipped = start.skipped
        batch: list[tuple[Cursor, Document, Cursor]] = []
        characters = 0
        for found in self._documents.read(start.cursor):
            batch.append(found)
            characters += len(found[1].text)
            if len(batch) < TOKENIZED_DOCUMENTS and characters < TOKENIZED_CHARACTERS:
                continue
            texts = [document.text for _, document, _ in batch]
            tokens = [np.array(ids, dtype=np.int32) for ids in encode(self._tokenizer, texts)]  # a tenth of the memory
            for (before, document, after), ids in zip(batch, tokens, strict=True):
                yield Text(before, after, document.id, ids[skipped:], skipped)
                skipped = 0
            batch, characters = [], 0


def _after(texts: list[Text], placed: int) -> list[Text]:
    """What is left of documents, with an EOS after each, when ``placed`` tokens are in samples."""
    for index, text in enumerate(texts):
        if placed <= len(text.tokens):
            cut = text._replace(tokens=text.tokens[placed:], skipped=text.skipped + placed)
            return [cut, *texts[index + 1 :]]
        placed -= len(text.tokens) + 1
    return []


class Lane:
    """The samples of all sources on one lane, mixed in the proportions of their weights."""

    def __init__(self, sources: list[SourceLane], mixture: Mixture) -> None:
        self._sources = sources
        self._mixture = mixture
        self._taken = 0

    def sample(self, index: int) -> tuple[int, PackedSample]:
        """The sample at ``index`` with the id of its source; those between the last one and it are left out."""
        while True:
            block, within = divmod(self._taken, self._mixture.block)
            source = int(self._mixture.sources(block)[0][within])
            sample = next(self._sources[source])
            self._taken += 1
            if self._taken > index:
                return source, sample

    def state(self) -> dict[str, Any]:
        """What `load_state` takes to go on after the last sample: plain values."""
        return {"taken": self._taken, "sources": [source.state() for source in self._sources]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; before the first sample."""
        self._taken = state["taken"]
        for source, of_source in zip(self._sources, state["sources"], strict=True):
            source.load_state(of_source)
