"""Batches of packed samples on every rank, resumable at any batch."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from presence_ds.data.corpus import PackedDataset
from presence_ds.errors import DataError


def build_loader(
    dataset: PackedDataset,
    *,
    micro_batch_size: int,
    rank: int,
    world_size: int,
    seed: int = 0,
    shuffle: bool = True,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> StatefulDataLoader:
    """Build this rank's loader of full micro-batches; over the ranks each sample comes once per epoch.

    What does not fill a micro-batch on every rank is left out of the epoch. Batches are dicts of ``input_ids`` and
    ``labels`` (int64 [micro_batch_size, sequence_length]), ``source_ids`` (int64 [micro_batch_size]) and
    ``document_ids`` (a list of str). The order depends on the seed and on ``loader.sampler.set_epoch``.

    Raises:
        DataError: there is not one micro-batch for every rank.
    """
    needed = micro_batch_size * world_size
    if len(dataset) < needed:
        raise DataError(
            f"the {dataset.part} part has {len(dataset)} samples, fewer than the {needed} of one micro-batch on every "
            f"rank ({micro_batch_size} samples on {world_size} ranks): give more text or a smaller micro-batch"
        )
    sampler = StatefulDistributedSampler(
        dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed, drop_last=True
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*set_vital")  # torchdata calls what newer torch deprecates
        return StatefulDataLoader(
            dataset,
            batch_size=micro_batch_size,
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            drop_last=True,
            generator=torch.Generator().manual_seed(seed),  # otherwise each epoch draws from the global generator
        )


class BatchStream(Iterator[dict[str, Any]]):
    """Batches without end, every epoch in another order, with a state that resumes at the next batch.

    Args:
        loader: What `build_loader` returned.
    """

    def __init__(self, loader: StatefulDataLoader) -> None:
        self.loader = loader
        self._batches: Iterator[dict[str, Any]] | None = None
        self._start_epoch(0)

    def _start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.sampler.set_epoch(epoch)
        self._batches = None

    def __next__(self) -> dict[str, Any]:
        while True:
            if self._batches is None:
                self._batches = iter(self.loader)
            batch = next(self._batches, None)
            if batch is not None:
                return batch
            self._start_epoch(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after the last batch returned: a few numbers. Each rank's own."""
        return {"epoch": self.epoch, "order": self._order(), "loader": self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            DataError: the corpus, the seed, the micro-batch size or the number of ranks is another one.
        """
        for name, here in self._order().items():
            if state["order"][name] != here:
                raise DataError(
                    f"the checkpoint was written with {name} = {state['order'][name]} and this run has {here}: resume "
                    f"with the same value, as the order of the samples depends on it"
                )
        self._start_epoch(state["epoch"])
        self.loader.load_state_dict(state["loader"])

    def _order(self) -> dict[str, int]:
        """What the order of the samples depends on, besides the epoch."""
        sampler = self.loader.sampler
        return {
            "samples": len(self.loader.dataset),
            "seed": sampler.seed,
            "micro_batch_size": self.loader.batch_size,
            "ranks": sampler.num_replicas,
        }
