"""What a variant is: a function that takes one optimizer step; and the paper's weights, for those without PRESENCE."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

Step = Callable[[Tensor], Tensor | None]  # token ids [B, T] to the samples' scores [B], if there are any


def relative_weights(scores: Tensor) -> Tensor:
    """N · w_i of this rank's samples (equations 6 to 8 with τ = 1 over the samples of all ranks), mean 1: [B]."""
    every = scores.new_empty(dist.get_world_size() * len(scores))
    dist.all_gather(list(every.chunk(dist.get_world_size())), scores)
    deviation = every.std(correction=0).clamp(min=torch.finfo(every.dtype).tiny)
    weights = torch.softmax((every - every.mean()) / deviation, 0) * len(every)
    return weights.chunk(dist.get_world_size())[dist.get_rank()]
