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
    ``labels`` (int64 [micro_batch_size, sequence_length]), ``attention_mask`` alike where samples have padding,
    ``source_ids`` and ``offsets`` (int64 [micro_batch_size]) and ``document_ids`` (a list of str). The order depends on
    the seed and on ``loader.sampler.set_epoch``.

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

    The state is the number of batches taken, not the loader's own: that one depends on the number of workers, and is
    wrong when it is taken between resuming and the next batch.

    Args:
        loader: What `build_loader` returned.
    """

    def __init__(self, loader: StatefulDataLoader) -> None:
        self.loader = loader
        self._start(epoch=0, batches=0)

    def _start(self, epoch: int, batches: int) -> None:
        self.epoch = epoch
        self._num_taken = batches
        self._batches: Iterator[dict[str, Any]] | None = None

    def __next__(self) -> dict[str, Any]:
        while True:
            if self._batches is None:
                self.loader.sampler.set_epoch(self.epoch)
                self.loader.sampler.load_state_dict({"yielded": self._num_taken * self.loader.batch_size})
                self._batches = iter(self.loader)
            batch = next(self._batches, None)
            if batch is not None:
                self._num_taken += 1
                return batch
            self._start(self.epoch + 1, batches=0)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after the last batch returned: a few numbers, the same on every rank."""
        return {"epoch": self.epoch, "batches": self._num_taken, "order": self._order()}

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
        self._start(state["epoch"], state["batches"])

    def _order(self) -> dict[str, int]:
        """What the order of the samples depends on, besides the epoch."""
        sampler = self.loader.sampler
        return {
            "samples": len(self.loader.dataset),
            "seed": sampler.seed,
            "micro_batch_size": self.loader.batch_size,
            "ranks": sampler.num_replicas,
        }
