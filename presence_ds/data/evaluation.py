"""Every sample of a split once over the ranks, in as many batches on each rank."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from presence_ds.data.corpus.corpus import PackedDataset, Sample
from presence_ds.data.loader import stateful_loader
from presence_ds.data.order.order import ShuffledOrder
from presence_ds.data.samples.objective import IGNORED


class _Once(Sampler[list[int]]):
    """One epoch of an order, cut into micro-batches for ``world_size`` ranks; the rows past its end are `PADDING`."""

    def __init__(self, order: ShuffledOrder, micro_batch_size: int, rank: int, world_size: int) -> None:
        self._order = order
        self._micro_batch_size = micro_batch_size
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        return -(-self._order.num_samples // (self._micro_batch_size * self._world_size))

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(len(self)):
            first = (step * self._world_size + self._rank) * self._micro_batch_size
            positions = np.arange(first, min(first + self._micro_batch_size, self._order.num_samples))
            padding = [PADDING] * (self._micro_batch_size - len(positions))
            yield self._order.draws(positions).tolist() + padding


class _Padded(Dataset[Sample]):
    """A dataset in which the row `PADDING` is a sample without labels."""

    def __init__(self, dataset: PackedDataset) -> None:
        self._dataset = dataset

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        samples = self._dataset.__getitems__([max(index, 0) for index in indices])
        for index, sample in zip(indices, samples, strict=True):
            if index == PADDING:
                sample["labels"] = torch.full_like(sample["labels"], IGNORED)
        return samples


def build_evaluation_loader(
    dataset: PackedDataset,
    *,
    micro_batch_size: int,
    rank: int,
    world_size: int,
    seed: int = 0,
    num_workers: int = 0,
) -> StatefulDataLoader:
    """Build this rank's loader of a whole split, in an order that is the same each time it is iterated.

    Over the ranks every sample comes once. Every rank gets the same number of full batches, as a forward under ZeRO-3
    needs; where the samples run out, rows whose labels are all -100 fill the last batch, on some ranks all of it.
    Batches are as `build_loader` makes them. The order is shuffled, so that the first batches stand for all sources.
    """
    order = ShuffledOrder(len(dataset), seed, "evaluation")
    sampler = _Once(order, micro_batch_size, rank, world_size)
    return stateful_loader(_Padded(dataset), sampler, num_workers=num_workers, pin_memory=False)


PADDING = -1
