"""Packing ``best_fit``: documents kept whole where they fit, several to a sample (Ding et al., ICML 2024)."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from presence_ds.data.samples.packed import PackedSample, Piece, Tokens, with_eos

BUFFER_TOKENS = 1 << 22  # placed at a time: 16 MiB, some thousand samples, so that nearly every gap finds its piece
BUFFER_ROWS = 256  # at least so many samples' worth

Part = tuple[Piece, NDArray[np.int32]]


def best_fit(
    documents: Iterable[tuple[str, Tokens]], row_length: int, eos_id: int, buffer_tokens: int = BUFFER_TOKENS
) -> Iterator[PackedSample]:
    """Cut documents (id, tokens), with EOS, only where they are longer than ``row_length``; fill samples with the rest.

    Each part that is shorter than a sample goes, longest first, into the sample with the least room that has enough.
    At most ``buffer_tokens`` (or `BUFFER_ROWS` samples) are held back to choose from. A sample that would hold a single
    token, which has nothing to predict, is dropped.
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
