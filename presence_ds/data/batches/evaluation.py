"""Every sample of a split once over the ranks, in as many batches on each rank."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from presence_ds.data.corpus.dataset import PackedDataset, Sample, collate
from presence_ds.data.order.shuffled import ShuffledOrder
from presence_ds.data.samples.objective import IGNORED

PADDING = -1


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
) -> DataLoader[Sample]:
    """Build this rank's loader of a whole split, in an order that is the same each time it is iterated.

    Over the ranks every sample comes once. Every rank gets the same number of full batches, as a forward under ZeRO-3
    needs; where the samples run out, rows whose labels are all -100 fill the last batch, on some ranks all of it.
    Batches are as `build_loader` makes them. The order is shuffled, so that the first batches stand for all sources.
    """
    micro_step = micro_batch_size * world_size
    places = np.arange(-(-len(dataset) // micro_step) * micro_step).reshape(-1, world_size, micro_batch_size)[:, rank]
    draws = ShuffledOrder(len(dataset), seed, "evaluation").draws(places)
    own = np.where(places < len(dataset), draws, PADDING).tolist()
    return DataLoader(
        _Padded(dataset), batch_sampler=own, num_workers=num_workers, collate_fn=collate, generator=torch.Generator()
    )
