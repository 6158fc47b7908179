"""What packings make of tokenized documents."""

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
