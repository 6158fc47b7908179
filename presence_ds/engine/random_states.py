"""Random numbers that can be drawn a second time, on the host and on the accelerator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor

RandomStates = tuple[Tensor, Tensor]


def random_states() -> RandomStates:
    """States of the host's generator and of the accelerator's (the same one where that is a CPU)."""
    return torch.get_rng_state(), get_accelerator().get_rng_state()


@contextmanager
def at_random_states(states: RandomStates) -> Iterator[None]:
    """Inside, random numbers go on from ``states``; afterwards from where they were."""
    before = random_states()
    _set_random_states(states)
    try:
        yield
    finally:
        _set_random_states(before)


def _set_random_states(states: RandomStates) -> None:
    get_accelerator().set_rng_state(states[1])
    torch.set_rng_state(states[0])
