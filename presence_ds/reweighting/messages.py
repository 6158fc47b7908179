"""Small whole numbers that ranks tell each other along with the scores of an optimizer step."""

import torch
from torch import Tensor

from presence_ds.transfers import to_device

BELOW = 2**24  # whole numbers that float32 holds


class Messages:
    """What this rank tells the others in a step, and what all of them have told in the last one.

    They travel as rows of the one gather that every optimizer step has: there is no collective for them, and nobody
    waits. What is told before the step's last forward is known after it, on every rank, also if the step raises
    `NonFiniteError`, is skipped or has nothing to learn from.
    """

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._heard: dict[str, Tensor] = {}

    def tell(self, name: str, number: int) -> None:
        """Tell ``number`` (0 to 2²⁴ − 1) in this step, in the place of what was told before; every rank tells one.

        Raises:
            ValueError: it is none of these numbers.
        """
        if not 0 <= number < BELOW:
            raise ValueError(f"{name} is {number}: it must be at least 0 and below {BELOW}")
        self._told[name] = number

    def largest(self, name: str) -> int:
        """The largest number of all ranks that was told as ``name`` in the last step in which every rank told one."""
        return int(self._heard[name].amax())

    def total(self, name: str) -> int:
        """Their sum."""
        return int(self._heard[name].sum())

    def rows(self, columns: int, device: torch.device) -> Tensor:
        """What is told, for the gather: [r, columns] float32 on ``device``, of one shape on every rank."""
        numbers = [self._told[name] for name in sorted(self._told)]
        numbers += [0] * (-len(numbers) % columns)
        rows = torch.tensor(numbers, dtype=torch.float32).view(-1, columns)
        return to_device(rows, device)

    def hear(self, rows: Tensor) -> None:
        """Take in `rows` of every rank: [ranks, r, columns], on the host."""
        numbers = rows.flatten(1).long()
        self._heard |= {name: numbers[:, place] for place, name in enumerate(sorted(self._told))}
        self._told = {}
