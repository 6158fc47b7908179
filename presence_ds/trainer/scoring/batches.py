"""Rows of a corpus in their order, as batches spread over the ranks."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from presence_ds.data import PackedDataset
from presence_ds.data.corpus.dataset import collate
from presence_ds.trainer.ranks.process_group import Ranks


class RowBatches:
    """This rank's batches of stretches of rows, one stretch after another.

    A batch holds up to ``size`` consecutive rows of one stretch, counted from its first, on however many ranks: batch i
    is rank i mod ranks'. Every rank gets as many of a stretch, as a forward under ZeRO-3 needs: where there is none
    left for it, the first one again, whose rows are then none of its own.
    """

    def __init__(self, dataset: PackedDataset, rows: Sequence[range], size: int, ranks: Ranks, workers: int) -> None:
        """Batches of the stretches ``rows`` of ``dataset``, read by ``workers`` processes."""
        self._size = size
        self._rank, self._ranks = ranks.rank, ranks.world_size
        drawn = (list(own or instead) for stretch in rows for own, instead in self._plan(stretch))
        loader: Any = DataLoader(
            dataset, batch_sampler=drawn, num_workers=workers, generator=torch.Generator(), collate_fn=collate
        )
        self._batches = iter(loader)

    def of(self, stretch: range) -> Iterator[tuple[range, range, dict[str, Any]]]:
        """This rank's own rows of each batch, which may be none, all ranks' rows up to its end, and the batch.

        To be asked for stretch by stretch, in their order.
        """
        for number, (own, _) in enumerate(self._plan(stretch), start=1):
            yield own, stretch[: number * self._size * self._ranks], next(self._batches)

    def _plan(self, stretch: range) -> Iterator[tuple[range, range]]:
        """Of every batch this rank's own rows, and those to take where there are none."""
        for base in range(0, len(stretch), self._size * self._ranks):
            start = base + self._rank * self._size
            yield stretch[start : start + self._size], stretch[: self._size]
