"""Decisions that depend on the seed and the document alone, never on the order of reading."""

import hashlib


def stable_hash(seed: int, purpose: str, key: str) -> int:
    """64 bits from ``seed``, what they are for, and a document id: the same on every machine and Python version."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{purpose}\0{key}".encode(), digest_size=8).digest(), "big")


def unit_hash(seed: int, purpose: str, key: str) -> float:
    """`stable_hash` as a number in [0, 1)."""
    return (stable_hash(seed, purpose, key) >> 11) / 2**53


def text_hash(text: str) -> bytes:
    """16 bytes that identify a text, to find exact duplicates."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
