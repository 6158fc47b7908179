"""Collectives of one kind, and what they put on the wire."""

from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

Kind = Literal["all-reduce", "all-gather", "reduce-scatter", "reduce", "broadcast", "barrier"]


@dataclass
class Traffic:
    """Collectives of one kind.

    Attributes:
        calls: how many.
        payload: bytes of the whole vectors they were about, as one rank sees them: of an all-reduce its input, of an
            all-gather its output, of a reduce-scatter its input.
    """

    calls: int = 0
    payload: int = 0


def sent_bytes(kind: Kind, payload: float, ranks: int) -> float:
    """Bytes that one of ``ranks`` sends (and receives) in a ring: twice (N − 1)/N of an all-reduce, once of others."""
    return (2 if kind == "all-reduce" else 1) * payload * (ranks - 1) / ranks


def latency_steps(kind: Kind, ranks: int) -> int:
    """Messages that follow each other in one call: a ring of all ranks, or for a small all-reduce a tree and back."""
    return 2 * ceil(log2(ranks)) if kind == "all-reduce" else ranks - 1
