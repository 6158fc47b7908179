"""Placebo: the weights of a step, given to other samples of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

FACTOR = 1_000_003
LARGEST_SEED = 1 << 62


def permuted(terms: Tensor, counted: Tensor, place: Sequence[int]) -> Tensor:
    """``terms`` ([n]) with those of the samples that are ``counted`` ([n] bool) in another order; alike on every rank.

    Args:
        place: numbers that the order is drawn by, such as the optimizer step.
    """
    seed = 0
    for number in place:
        seed = (seed * FACTOR + number + 1) % LARGEST_SEED
    order = torch.randperm(int(counted.sum()), generator=torch.Generator().manual_seed(seed))
    result = terms.clone()
    result[counted] = terms[counted][order]
    return result


def permuted_by_micro_batch(terms: Tensor, counted: Tensor, sizes: Sequence[Sequence[int]], step: int) -> Tensor:
    """`permuted` within every micro-batch of ``terms`` ([N] of all ranks), of ``sizes`` by rank and micro-step."""
    first, found = 0, []
    for rank, of_rank in enumerate(sizes):
        for micro_step, size in enumerate(of_rank):
            block = slice(first, first + size)
            found.append(permuted(terms[block], counted[block], (step, rank, micro_step)))
            first += size
    return torch.cat(found)
