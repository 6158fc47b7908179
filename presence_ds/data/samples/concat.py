"""Packing ``concat``: documents joined, and cut at every ``row_length`` tokens."""

from collections.abc import Iterable, Iterator

import numpy as np

from presence_ds.data.samples.packed import PackedSample, Tokens, with_eos


def concat(documents: Iterable[tuple[str, Tokens]], row_length: int, eos_id: int) -> Iterator[PackedSample]:
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
