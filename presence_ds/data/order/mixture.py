"""Mixtures: sources that are drawn from in stated proportions, each in epochs of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from presence_ds.data.order.permutation import Permutation
from presence_ds.data.order.shuffled import ShuffledOrder
from presence_ds.data.sources.config import SourceConfig
from presence_ds.errors import ConfigError, DataError

if TYPE_CHECKING:
    from presence_ds.data.corpus.dataset import PackedDataset

MIN_BLOCK = 1024  # positions in which every source has its exact share
MAX_BLOCK = 2**20


def check_weights(sources: Sequence[SourceConfig], field: str) -> None:
    """Raise `ConfigError` if the weights of training sources, listed under ``field``, cannot be used together."""
    weights = [source.weight for source in sources]
    if all(weight is None for weight in weights):
        return
    for index, weight in enumerate(weights):
        if weight is None:
            raise ConfigError(
                f"{field}[{index}].weight is not set, and other sources have one: it must be set for all or for none"
            )
    total = sum(Fraction(weight) for weight in weights if weight is not None)
    for index, weight in enumerate(weights):
        if weight is not None and Fraction(weight) * MAX_BLOCK < total:
            raise ConfigError(
                f"{field}[{index}].weight is {weight}: it must be at least {1 / MAX_BLOCK:.0e} of the sum of all "
                f"weights, {float(total):g}"
            )


def mixture_weights(
    sources: Sequence[SourceConfig], noise_shares: Mapping[str, float] | None = None
) -> dict[str, float] | None:
    """Weights by source name, or None where every source counts with its size.

    Each noise gets the weight that gives it its share of the samples, above 0 and together below 1.
    """
    weights = {source.name: source.weight for source in sources if source.weight is not None}
    if not weights:
        return None
    shares = noise_shares or {}
    clean, rest = math.fsum(weights.values()), 1 - math.fsum(shares.values())
    return weights | {name: share / rest * clean for name, share in shares.items()}


class Mixture:
    """Which source each position of a sequence without end is from.

    Positions are cut into blocks. After every block each source has had its share of all positions so far, to within
    one sample; within a block the sources are shuffled.

    Args:
        weights: weights by source name; only their proportions count.
        seed: seed of every permutation.
        name: distinguishes mixtures of one seed.
    """

    def __init__(self, weights: dict[str, float], seed: int, name: str = "") -> None:
        self._seed, self._name = seed, name
        total = sum(Fraction(weight) for weight in weights.values())
        shares = [Fraction(weight) / total for weight in weights.values()]
        self._bounds = [sum(shares[:count], Fraction(0)) for count in range(len(shares) + 1)]
        self.block = max(MIN_BLOCK, math.ceil(1 / min(shares)))
        self.sources = lru_cache(maxsize=max(2, MAX_BLOCK // self.block))(self._make_sources)

    def taken(self, block: int) -> NDArray[np.int64]:
        """Samples of each source in all blocks before ``block``, int64 [sources].

        Differences of rounded bounds: they sum to the number of positions, and grow from block to block because a block
        holds at least one sample of every source on average.
        """
        rounded = np.array([math.floor(block * self.block * bound + Fraction(1, 2)) for bound in self._bounds])
        return rounded[1:] - rounded[:-1]

    def _make_sources(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each position of a block, the index of its source and how many samples that source gave before it."""
        before = self.taken(block)
        counts = self.taken(block + 1) - before
        shuffled = Permutation(self.block, self._seed, "mixture", f"{self._name}{block}")(np.arange(self.block))
        sources = np.searchsorted(np.cumsum(counts), shuffled, side="right")
        ordinals = np.empty(self.block, dtype=np.int64)
        first = np.cumsum(counts) - counts
        ordinals[np.argsort(sources, kind="stable")] = np.arange(self.block) + np.repeat(before - first, counts)
        return sources, ordinals


class MixedOrder:
    """Samples of several sources in the proportions of their weights, each source in epochs of its own.

    A source that is through starts over in another order, however far the others are.

    Args:
        dataset: the samples.
        source_names: names by source id.
        weights: weights by source name, for every source of ``dataset``; only their proportions count.
        seed: seed of every permutation.

    Raises:
        DataError: a source with a weight has no samples.
    """

    def __init__(
        self, dataset: PackedDataset, source_names: Sequence[str], weights: dict[str, float], seed: int
    ) -> None:
        runs = {source_names[source_id]: found for source_id, found in source_runs(dataset).items()}
        if empty := [name for name in weights if name not in runs]:
            raise DataError(
                f'source "{empty[0]}" has a weight and gave no sample of the {dataset.part} part: give it more text or '
                f"leave it out"
            )
        self.seed = seed
        self.weights = weights
        self.num_samples = len(dataset)
        self._runs = [runs[name] for name in weights]
        self._orders = [
            ShuffledOrder(int(found[1][-1]), seed, name) for name, found in zip(weights, self._runs, strict=True)
        ]
        self._mixture = Mixture(weights, seed)
        self.block = self._mixture.block

    def draws(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        draws = np.empty_like(positions)
        blocks, within = np.divmod(positions, self.block)
        for block in np.unique(blocks).tolist():
            of_block = np.flatnonzero(blocks == block)
            sources, ordinals = self._mixture.sources(block)
            sources, ordinals = sources[within[of_block]], ordinals[within[of_block]]
            for index in np.unique(sources).tolist():
                of_source = sources == index
                order = self._orders[index]
                epochs, numbers = np.divmod(order.draws(ordinals[of_source]), order.num_samples)
                first, before = self._runs[index]
                run = np.searchsorted(before, numbers, side="right") - 1
                rows = first[run] + numbers - before[run]
                draws[of_block[of_source]] = rows + epochs * self.num_samples
        return draws

    def epochs(self, position: int) -> dict[str, float]:
        block, within = divmod(position, self.block)
        taken = self._mixture.taken(block)
        taken = taken + np.bincount(self._mixture.sources(block)[0][:within], minlength=len(self._orders))
        return {
            order.name: count / order.num_samples for order, count in zip(self._orders, taken.tolist(), strict=True)
        }

    def identity(self) -> dict[str, Any]:
        samples = {order.name: order.num_samples for order in self._orders}
        return {"seed": self.seed, "samples": samples, "weights": self.weights}


Runs = tuple[NDArray[np.int64], NDArray[np.int64]]  # first rows of stretches of one source, and samples before each


def source_runs(dataset: PackedDataset) -> dict[int, Runs]:
    """Where the samples of each source id lie; a corpus is written source by source, so that these are few."""
    ids = dataset.rows.select_columns(["source_id"]).with_format("arrow")[:]["source_id"].to_numpy()
    first = np.flatnonzero(np.diff(ids, prepend=-1))
    lengths, sources = np.diff(first, append=len(ids)), ids[first]
    runs = {}
    for source_id in dict.fromkeys(sources.tolist()):
        own = sources == source_id
        runs[source_id] = (first[own], np.concatenate([[0], np.cumsum(lengths[own])]))
    return runs
