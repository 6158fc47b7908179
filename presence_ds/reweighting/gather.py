"""Rows of samples, from every rank to every rank."""

import torch.distributed as dist
from torch import Tensor

# One collective into one tensor, however many ranks there are; newer releases of torch warn of its older name.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def gather_rows(local: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """``local`` ([n, …], of one shape on every rank) of all ranks of ``group``, ordered by rank: [ranks · n, …]."""
    every = local.new_empty(dist.get_world_size(group) * local.shape[0], *local.shape[1:])
    _all_gather(every, local, group=group)
    return every
