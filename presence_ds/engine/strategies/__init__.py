"""How scoring and training share the passes over a model: one class each, one file each."""

from typing import Any

from torch import nn

from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.strategies.loss_only import LossOnly
from presence_ds.engine.strategies.one_pass import OnePass
from presence_ds.engine.strategies.strategy import MicroStep, Strategy
from presence_ds.engine.strategies.two_pass import TwoPass

__all__ = ["LossOnly", "MicroStep", "OnePass", "Strategy", "TwoPass", "build_strategy"]


def build_strategy(model: nn.Module, config: PresenceConfig, **options: Any) -> Strategy:
    """The strategy that ``config`` asks for; ``options`` are those of `Strategy`.

    Raises:
        AttributionError: one_pass cannot train a module of the model.
    """
    kind = TwoPass if config.strategy == "two_pass" else OnePass if config.computes_gradients else LossOnly
    return kind(model, config, **options)
