"""Batches of packed samples on every rank, resumable at any batch and on any number of ranks."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from presence_ds.data.corpus.dataset import PackedDataset, Sample, collate
from presence_ds.data.order.mixture import MixedOrder
from presence_ds.data.order.shuffled import Order, ShuffledOrder
from presence_ds.errors import DataError

LOOK_AHEAD = 256  # samples of this rank whose rows are computed at once
DIGEST_ROWS = 64


class RankSampler(Sampler[list[int]]):
    """The micro-batches of one rank: of every ``micro_batch_size * world_size`` positions of an order, its slice.

    Args:
        order: the order of all samples.
        micro_batch_size: samples of a batch.
        rank: this rank, of ``world_size``.

    Attributes:
        position: samples of the order, over all ranks, that batches were drawn from. Batches are drawn ahead of what
            a loader has returned.
    """

    def __init__(self, order: Order, micro_batch_size: int, rank: int, world_size: int) -> None:
        self.order = order
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.step = micro_batch_size * world_size
        self.position = 0

    def __iter__(self) -> Iterator[list[int]]:
        own = self.rank * self.micro_batch_size + np.arange(self.micro_batch_size)
        steps = np.arange(max(1, LOOK_AHEAD // self.micro_batch_size))[:, None] * self.step
        while True:
            draws = self.order.draws((self.position + steps + own).ravel()).reshape(-1, self.micro_batch_size)
            for batch in draws.tolist():
                self.position += self.step
                yield batch


def build_loader(
    dataset: PackedDataset,
    *,
    micro_batch_size: int,
    rank: int,
    world_size: int,
    seed: int = 0,
    weights: dict[str, float] | None = None,
    source_names: Sequence[str] = (),
    num_workers: int = 0,
) -> DataLoader[Sample]:
    """Build this rank's endless loader of full micro-batches, which leaves the global random numbers alone.

    Over the ranks each sample comes once per epoch; epochs follow each other without a gap, also inside a batch.
    Batches are dicts of ``input_ids`` and ``labels`` (int64 [micro_batch_size, positions]), ``attention_mask`` as the
    former where samples have padding, or what tells their documents apart (`Sample`), ``source_ids`` and ``offsets``
    (int64 [micro_batch_size]) and ``document_ids`` (a list of str).

    Args:
        weights: proportions in which the sources are drawn, by name, with ``source_names`` by source id. None: every
            source with its own size.

    Raises:
        DataError: there is not one micro-batch for every rank, or a source with a weight has no samples.
    """
    needed = micro_batch_size * world_size
    if len(dataset) < needed:
        raise DataError(
            f"the {dataset.part} part has {len(dataset)} samples, fewer than the {needed} of one micro-batch on every "
            f"rank ({micro_batch_size} samples on {world_size} ranks): give more text or a smaller micro-batch"
        )
    order: Order = ShuffledOrder(len(dataset), seed)
    if weights is not None:
        order = MixedOrder(dataset, source_names, weights, seed)
    sampler = RankSampler(order, micro_batch_size, rank, world_size)
    return DataLoader(
        dataset, batch_sampler=sampler, num_workers=num_workers, collate_fn=collate, generator=torch.Generator()
    )


class BatchStream(Iterator[dict[str, Any]]):
    """Batches without end, with a state that resumes at the next batch.

    The state is the number of samples taken over all ranks, which holds for any number of ranks and workers and any
    micro-batch size. The sampler's position is ahead of it by what the workers prefetch.

    Args:
        loader: What `build_loader` returned.
    """

    def __init__(self, loader: DataLoader[Sample]) -> None:
        self._loader = loader
        assert isinstance(loader.batch_sampler, RankSampler)
        assert isinstance(loader.dataset, PackedDataset)
        self._sampler = loader.batch_sampler
        self._identity = {**self._sampler.order.identity(), "digest of the samples": digest(loader.dataset)}
        self._batches: Iterator[dict[str, Any]] | None = None
        self.position = 0

    @property
    def source_epochs(self) -> dict[str, float]:
        """Epochs taken of each source of a mixture, by name; without weights, of the whole corpus under ``""``."""
        return self._sampler.order.epochs(self.position)

    def __next__(self) -> dict[str, Any]:
        if self._batches is None:
            self._sampler.position = self.position
            self._batches = iter(self._loader)
        batch = next(self._batches)
        self.position += self._sampler.step
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after the last batch returned: plain values, the same on every rank."""
        return {"position": self.position, "order": self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken, also on another number of ranks or with another micro-batch size.

        Raises:
            DataError: the corpus, the seed or the weights are others, or the state is that of an earlier version.
        """
        if "position" not in state:
            raise DataError(
                "the checkpoint was written by an earlier version of this package, which took the samples in another "
                "order: go on with that version, or start anew"
            )
        check_identity(state["order"], self._identity)
        self.position = state["position"]
        self._batches = None

    def divide(self, states: Iterator[dict[str, Any]], ranks: int) -> list[dict[str, Any]]:
        """What each of ``ranks`` ranks needs to go on, out of the states of those that there were: the same for all."""
        return [next(states)] * ranks


def check_identity(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise `DataError` if the order that a checkpoint was written with is another than this run's."""
    for name, value in here.items():
        if there.get(name) != value:
            raise DataError(
                f"the checkpoint was written with {name} = {there.get(name)} and this run has {value}: resume with the "
                f"same value, as the order of the samples depends on it"
            )


def digest(dataset: PackedDataset) -> str:
    """Digest of up to `DIGEST_ROWS` samples from all over the dataset, to notice another corpus of the same size."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, DIGEST_ROWS).astype(np.int64)).tolist()
    found = hashlib.blake2b(digest_size=8)
    for sample in dataset.__getitems__(rows):
        found.update(sample["document_ids"].encode() + b"\0" + sample["input_ids"].numpy().tobytes())
    return found.hexdigest()
