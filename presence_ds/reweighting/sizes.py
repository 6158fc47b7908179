"""How many samples of an optimizer step every rank has, and how ranks that have different numbers exchange rows."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.reweighting.samples import gather_rows


@dataclass(frozen=True)
class Sizes:
    """The samples of a step so far, on every rank alike.

    Attributes:
        by_rank: of every micro-step of every rank.
        rank: this one.
    """

    by_rank: list[list[int]]
    rank: int

    @classmethod
    def of(
        cls, own: list[int], group: dist.ProcessGroup | None, device: torch.device, *, unequal: bool = False
    ) -> "Sizes":
        """``own`` are those of this rank. ``unequal``: others may differ, and are asked for in one small collective."""
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        if not unequal:
            return cls([own] * ranks, rank)
        return cls(gather_rows(torch.tensor([own], device=device), group).tolist(), rank)

    @cached_property
    def totals(self) -> list[int]:
        """Of the step, of every rank."""
        return [sum(sizes) for sizes in self.by_rank]

    def own(self, values: Tensor) -> Tensor:
        """This rank's part of ``values`` [N, …], which are ordered by rank."""
        return values[sum(self.totals[: self.rank]) :][: self.totals[self.rank]]

    def gather(self, local: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        """``local`` [n, …] of all ranks, ordered by rank, on the host: [N, …]."""
        return self.gather_with(local[:0], local, group)[0]

    def gather_with(self, head: Tensor, local: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
        """`gather`, and ``head`` ([r, …], with the columns of ``local``) of every rank in one tensor: [ranks, r, …]."""
        rows = torch.cat([head, self.padded(local)]) if len(head) else self.padded(local)
        heads, every = gather_rows(rows, group).cpu().unflatten(0, (len(self.by_rank), -1)).tensor_split([len(head)], 1)
        every = every.flatten(0, 1)
        return every if len(every) == sum(self.totals) else every[self._places], heads

    def padded(self, local: Tensor) -> Tensor:
        """``local`` [n, …] with rows of zeros, up to as many as the rank has that has most."""
        missing = max(self.totals) - len(local)
        return torch.cat([local, local.new_zeros(missing, *local.shape[1:])]) if missing else local

    def placed(self, counted: Tensor) -> Tensor:
        """``counted`` ([N] bool, host) where `padded` rows of all ranks stand one after the other, False between."""
        found = torch.zeros(len(self.by_rank) * max(self.totals), dtype=torch.bool)
        found[self._places] = counted
        return found

    @cached_property
    def _places(self) -> Tensor:
        """[N] int64, where the rows of the samples are among the padded ones."""
        largest = max(self.totals)
        return torch.cat([rank * largest + torch.arange(total) for rank, total in enumerate(self.totals)])
