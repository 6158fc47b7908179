"""Permutations of any size that are computed, not stored: no memory, no start-up, and any entry by itself."""

import math

import numpy as np
from numpy.typing import NDArray

from presence_ds.data.hashing import mix, stable_hash

ROUNDS = 16  # with 8, the permutations of five elements were visibly not all as likely
WORD = 32  # bits of a round's hash that are used


class Permutation:
    """A pseudo-random bijection of 0, …, ``size`` - 1, the same on every machine and with every version of numpy.

    A Feistel network over the rectangle Z_a × Z_b that holds ``size`` most tightly; what falls outside is sent through
    again (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). The hash between the rounds is for
    shuffling, not for secrets.

    Args:
        size: number of elements, from 1 to 2^63 - 1.
        seed: with ``purpose`` and ``key``, which of the permutations of this size.
    """

    def __init__(self, size: int, seed: int, purpose: str, key: str) -> None:
        self.size = size
        self._rows = math.isqrt(size - 1) + 1
        self._columns = -(-size // self._rows)
        self._keys = [np.uint64(stable_hash(seed, purpose, f"{key}\0{index}")) for index in range(ROUNDS)]

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each of ``indices`` (int64 [n], each below ``size``) goes, int64 [n]."""
        images = self._network(indices.astype(np.uint64))
        while (outside := np.flatnonzero(images >= self.size)).size:
            images[outside] = self._network(images[outside])
        return images.astype(np.int64)

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        row, column = np.divmod(values, np.uint64(self._columns))
        for index, key in enumerate(self._keys):
            if index % 2 == 0:
                row = _shifted(row, column, key, self._rows)
            else:
                column = _shifted(column, row, key, self._columns)
        return row * np.uint64(self._columns) + column


def _shifted(half: NDArray[np.uint64], other: NDArray[np.uint64], key: np.uint64, size: int) -> NDArray[np.uint64]:
    """``half``, below ``size``, plus a hash of the other half, modulo ``size``."""
    word = mix(other + key) >> np.uint64(WORD)
    shifted = half + (word * np.uint64(size) >> np.uint64(WORD))  # the product scales the word to below size
    return np.where(shifted >= size, shifted - np.uint64(size), shifted)
