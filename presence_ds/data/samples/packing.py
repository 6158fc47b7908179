"""Three packings of tokenized documents into samples.

concat       documents joined and cut at every ``row_length`` tokens: no padding, samples begin and end anywhere
best_fit     documents kept whole where they fit, several to a sample: little padding
document     one document to a sample: as much padding as documents are short

Each packing takes documents as (id, tokens), puts EOS after every one, and keeps every token exactly once and in order,
but for those that the report counts as dropped. The EOS belongs to the document before it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BUFFER_TOKENS = 1 << 22  # placed at a time: 16 MiB, some thousand samples, so that nearly every gap finds its piece
BUFFER_ROWS = 256  # at least so many samples' worth
Tokens = list[int] | NDArray[np.int32]  # of a document, without EOS


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
        pieces: Where all the tokens come from, in order. Packing document has none: a sample is of one document.
    """

    input_ids: NDArray[np.int32]
    document_id: str
    offset: int
    pieces: tuple[Piece, ...] = ()

    def moved(self, skipped: int) -> "PackedSample":
        """The sample, where the document that it starts in was packed without its first ``skipped`` tokens."""
        pieces = [piece._replace(offset=piece.offset + skipped) for piece in self.pieces[:1]]
        return self._replace(offset=self.offset + skipped, pieces=(*pieces, *self.pieces[1:]))


Part = tuple[Piece, NDArray[np.int32]]


def with_eos(tokens: Tokens, eos_id: int) -> NDArray[np.int32]:
    """A document's tokens and its EOS, int32."""
    return np.append(np.asarray(tokens, dtype=np.int32), np.int32(eos_id))


def concat(documents: Iterable[tuple[str, Tokens]], row_length: int, eos_id: int) -> Iterator[PackedSample]:
    """Concatenate documents (id, tokens), each followed by EOS, and cut the result every ``row_length`` tokens.

    Tokens after the last full sample are dropped.
    """
    parts: list[Part] = []
    room = row_length
    for document_id, tokens in documents:
        ids = with_eos(tokens, eos_id)
        position = 0
        while position < len(ids):
            part = ids[position : position + room]
            parts.append((Piece(document_id, position, len(part)), part))
            position += len(part)
            room -= len(part)
            if room == 0:
                yield _sample(parts)
                parts, room = [], row_length


def one_document_per_sample(
    documents: Iterable[tuple[str, Tokens]], row_length: int, eos_id: int
) -> Iterator[PackedSample]:
    """Cut every document (id, tokens), with its EOS, into samples of ``row_length`` tokens and a last one of the rest.

    A rest of one token has nothing to predict in a sample of its own: it takes the token before it along, or is dropped
    where ``row_length`` is 2. A document that is no more than its EOS is dropped.
    """
    for document_id, tokens in documents:
        ids = with_eos(tokens, eos_id)
        start = 0
        while (left := len(ids) - start) > 1:
            taken = row_length - 1 if left == row_length + 1 and row_length > 2 else row_length
            yield PackedSample(ids[start : start + taken], document_id, start)
            start += taken


def best_fit(
    documents: Iterable[tuple[str, Tokens]], row_length: int, eos_id: int, buffer_tokens: int = BUFFER_TOKENS
) -> Iterator[PackedSample]:
    """Cut documents (id, tokens), with EOS, only where they are longer than ``row_length``; fill samples with the rest.

    Each part that is shorter than a sample goes, longest first, into the sample with the least room that has enough.
    At most ``buffer_tokens`` (or `BUFFER_ROWS` samples) are held back to choose from. A sample that would hold a single
    token, which has nothing to predict, is dropped. Ding et al., "Fewer Truncations Improve Language Modeling" (2024).
    """
    limit = max(buffer_tokens, BUFFER_ROWS * row_length)
    parts: list[Part] = []
    held = 0
    for document_id, tokens in documents:
        ids = with_eos(tokens, eos_id)
        for start in range(0, len(ids), row_length):
            part = ids[start : start + row_length]
            piece = Piece(document_id, start, len(part))
            if len(part) == row_length:
                yield _sample([(piece, part)])
            else:
                parts.append((piece, part.copy()))  # a view would keep all of a long document
                held += len(part)
        if held >= limit:
            yield from _place(parts, row_length)
            parts, held = [], 0
    yield from _place(parts, row_length)


def _place(parts: list[Part], row_length: int) -> Iterator[PackedSample]:
    """Best-fit decreasing. Parts of one length keep their order, so that the result depends on nothing but them."""
    rows: list[list[Part]] = []
    rows_with_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of rows_with_room in ascending order
    for part in sorted(parts, key=lambda part: part[0].length, reverse=True):
        length = part[0].length
        found = bisect_left(rooms, length)
        if found < len(rooms):
            room = rooms[found]
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                del rows_with_room[room], rooms[found]
            rows[row].append(part)
        else:
            room, row = row_length, len(rows)
            rows.append([part])
        if left := room - length:
            if left not in rows_with_room:
                rows_with_room[left] = []
                insort(rooms, left)
            rows_with_room[left].append(row)
    for row_parts in rows:
        if sum(piece.length for piece, _ in row_parts) > 1:
            yield _sample(row_parts)


def _sample(parts: list[Part]) -> PackedSample:
    pieces = tuple(piece for piece, _ in parts)
    ids = parts[0][1] if len(parts) == 1 else np.concatenate([ids for _, ids in parts])
    return PackedSample(ids, pieces[0].document_id, pieces[0].offset, pieces)


PACKINGS = {"concat": concat, "best_fit": best_fit, "document": one_document_per_sample}
