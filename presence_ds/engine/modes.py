"""Evaluation for a while, for a trial run, that leaves no trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn


class HasModes(Protocol):
    """What has a model, and knows when it is put into another mode."""

    module: nn.Module

    def train(self, mode: bool = True) -> Any:
        """Put the model into training mode, or into evaluation mode."""


@contextmanager
def modes_restored(engine: HasModes) -> Iterator[None]:
    """Afterwards every module is in the mode that it was in: a frozen part may be in evaluation while others train."""
    modes = {module: module.training for module in engine.module.modules()}
    try:
        yield
    finally:
        engine.train(modes[engine.module])
        for module, mode in modes.items():
            module.training = mode
