"""Documents joined by EOS and cut into samples of one length, without padding."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PackedSample(NamedTuple):
    """``sequence_length`` consecutive tokens of a source.

    Args:
        input_ids: int32 [sequence_length].
        document_id: The document the sample starts in.
        offset: Position in that document, in tokens, of the sample's first token.
    """

    input_ids: NDArray[np.int32]
    document_id: str
    offset: int


def pack(documents: Iterable[tuple[str, list[int]]], sequence_length: int, eos_id: int) -> Iterator[PackedSample]:
    """Concatenate documents (id, tokens), each followed by EOS, and cut the result every ``sequence_length`` tokens.

    The EOS belongs to the document before it. Tokens after the last full sample are dropped.
    """
    buffer = np.empty(sequence_length, dtype=np.int32)
    filled = 0
    start = ("", 0)
    for document_id, tokens in documents:
        ids = np.array([*tokens, eos_id], dtype=np.int32)
        position = 0
        while position < len(ids):
            if filled == 0:
                start = (document_id, position)
            taken = min(sequence_length - filled, len(ids) - position)
            buffer[filled : filled + taken] = ids[position : position + taken]
            filled += taken
            position += taken
            if filled == sequence_length:
                yield PackedSample(buffer, *start)
                buffer = np.empty(sequence_length, dtype=np.int32)
                filled = 0
