"""Sums over a sliding window of optimizer steps, kept in blocks, so that what follows from them has an error."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCKS = 20
FEWEST_BLOCKS = 5  # that an error is told from


class Window:
    """Sums of a vector that every step gives, over the last `BLOCKS` blocks of steps and the one in progress.

    Steps next to each other are alike, blocks of them much less: errors are of the jackknife over blocks.
    """

    def __init__(self, steps: int) -> None:
        """``steps`` that the window is long, in whole blocks, and at least one step in each."""
        self._size = max(1, round(steps / BLOCKS))
        self._blocks: list[Tensor] = []  # [...] float64; none is changed in place, so that a state stays what it was
        self._steps = 0  # in the last block

    def add(self, values: Tensor) -> None:
        """Take in a step's ``values`` ([..., n] float64); n may differ from step to step, and what is missing is 0."""
        if not self._blocks or self._steps == self._size:
            self._blocks = [*self._blocks, torch.zeros_like(values)][-BLOCKS - 1 :]
            self._steps = 0
        last = self._blocks[-1]
        grown = pad(last, (0, max(0, values.shape[-1] - last.shape[-1])))
        self._blocks = [*self._blocks[:-1], grown + pad(values, (0, grown.shape[-1] - values.shape[-1]))]
        self._steps += 1

    @property
    def sums(self) -> Tensor | None:
        """[blocks, ..., n]; None before the first step."""
        if not self._blocks:
            return None
        widest = max(block.shape[-1] for block in self._blocks)
        return torch.stack([pad(block, (0, widest - block.shape[-1])) for block in self._blocks])

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint, on the host."""
        return {"blocks": list(self._blocks), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, on the host whatever the checkpoint was read to."""
        self._blocks, self._steps = [block.cpu() for block in state["blocks"]], state["steps"]


def estimate(sums: Tensor, figure: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A figure of sums over blocks and its standard error, NaN with fewer than `FEWEST_BLOCKS`: by the jackknife.

    Args:
        sums: [blocks, ...] float64.
        figure: from sums over all of the blocks, [..., ...], of any number of leading dimensions.
    """
    total, blocks = sums.sum(0), len(sums)
    value = figure(total)
    if blocks < FEWEST_BLOCKS:
        return value, torch.full_like(value, torch.nan)
    without = figure(total - sums)
    spread = (without - without.mean(0)).square().sum(0)
    return value, (spread * (blocks - 1) / blocks).sqrt()
