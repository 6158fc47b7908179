"""Decisions that depend on the seed and the document alone, never on the order of reading."""

import hashlib

import numpy as np
from numpy.typing import NDArray

TEXT_HASH_BYTES = 16
GAMMA = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64 counts in steps of this


def stable_hash(seed: int, purpose: str, key: str) -> int:
    """64 bits from ``seed``, what they are for, and a document id: the same on every machine and Python version."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{purpose}\0{key}".encode(), digest_size=8).digest(), "big")


def unit_hash(seed: int, purpose: str, key: str) -> float:
    """`stable_hash` as a number in [0, 1)."""
    return (stable_hash(seed, purpose, key) >> 11) / 2**53


def text_hash(text: str) -> bytes:
    """`TEXT_HASH_BYTES` that identify a text, to find exact duplicates."""
    return hashlib.blake2b(text.encode(), digest_size=TEXT_HASH_BYTES).digest()


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the result depends on every bit of ``values``."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def random_bits(key: int, count: int) -> NDArray[np.uint64]:
    """``count`` different numbers of 64 random bits that follow from ``key``, itself 64 bits: SplitMix64 from there."""
    return mix(np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * GAMMA)
