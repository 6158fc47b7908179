"""The order of the samples: one sequence without end that knows nothing of ranks, workers or batches.

Position p of the sequence is a pure function of the seed and the corpus. Whoever takes samples takes consecutive
positions, so the number of samples taken so far is all that a resume needs, on any number of ranks.
"""

from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from presence_ds.data.order.permutation import Permutation


class Order(Protocol):
    """An endless sequence of the rows of a corpus."""

    num_samples: int

    def draws(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at these positions, int64 of their shape; plus ``num_samples`` for each time a row came before."""

    def epochs(self, position: int) -> dict[str, float]:
        """How often each part of the corpus that has epochs of its own is through after ``position`` samples."""

    def identity(self) -> dict[str, Any]:
        """What the order depends on, as plain values."""


class ShuffledOrder:
    """Every sample once in a random order, then once more in another, and so on.

    Args:
        num_samples: samples of an epoch; rows are counted from 0.
        seed: seed of the permutations.
        name: distinguishes orders of one seed.
    """

    def __init__(self, num_samples: int, seed: int, name: str = "") -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.name = name
        self._permutation = lru_cache(maxsize=2)(self._make_permutation)

    def _make_permutation(self, epoch: int) -> Permutation:
        return Permutation(self.num_samples, self.seed, "order", f"{self.name}\0{epoch}")

    def draws(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        epochs, within = np.divmod(positions, self.num_samples)
        draws = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            of_epoch = epochs == epoch
            draws[of_epoch] = self._permutation(epoch)(within[of_epoch]) + epoch * self.num_samples
        return draws

    def epochs(self, position: int) -> dict[str, float]:
        return {self.name: position / self.num_samples}

    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed, "samples": self.num_samples, "weights": None}
