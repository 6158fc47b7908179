"""From tokenized documents to samples: the three packings, of which this file has the first.

concat       documents joined and cut at every ``row_length`` tokens: no padding, samples begin and end anywhere
best_fit     documents kept whole where they fit, several to a sample (`best_fit.py`): little padding
document     one document to a sample (`one_document.py`): as much padding as documents are short

Each takes documents as (id, tokens), puts EOS after every one, and keeps every token exactly once and in order, but for
those that the report counts as dropped. The EOS belongs to the document before it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Piece(NamedTuple):
    """Consecutive tokens of one document: their number, and the position of the first in the document."""

    document_id: str
    offset: int
    length: int


class PackedSample(NamedTuple):
    """At most ``row_length`` tokens of a source; fewer are padded when they are read.

    Args:
        input_ids: int32 [tokens].
        document_id: The document the sample starts in.
        offset: Position in that document, in tokens, of the sample's first token.
        pieces: With best_fit, where all the tokens come from, in order; they are a row's only key to its documents. The
            other packings have none: a sample goes on in the document it starts in, and then in those that follow.
    """

    input_ids: NDArray[np.int32]
    document_id: str
    offset: int
    pieces: tuple[Piece, ...] = ()


Tokens = list[int] | NDArray[np.int32]  # of a document, without EOS


def with_eos(tokens: Tokens, eos_id: int) -> NDArray[np.int32]:
    """A document's tokens and its EOS, int32."""
    return np.append(np.asarray(tokens, dtype=np.int32), np.int32(eos_id))


def pack(documents: Iterable[tuple[str, Tokens]], row_length: int, eos_id: int) -> Iterator[PackedSample]:
    """Concatenate documents (id, tokens), each followed by EOS, and cut the result every ``row_length`` tokens.

    Tokens after the last full sample are dropped.
    """
    buffer = np.empty(row_length, dtype=np.int32)
    filled = 0
    start = ("", 0)
    for document_id, tokens in documents:
        ids = with_eos(tokens, eos_id)
        position = 0
        while position < len(ids):
            if filled == 0:
                start = (document_id, position)
            taken = min(row_length - filled, len(ids) - position)
            buffer[filled : filled + taken] = ids[position : position + taken]
            filled += taken
            position += taken
            if filled == row_length:
                yield PackedSample(buffer, *start)
                buffer = np.empty(row_length, dtype=np.int32)
                filled = 0
