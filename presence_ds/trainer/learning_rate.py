"""Learning-rate schedules: a linear warm-up, then cosine, linear, inverse square root or constant."""

import math
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from presence_ds.errors import ConfigError


@dataclass
class LearningRateConfig:
    """How the learning rate moves from step to step, as a factor of optimizer.lr.

    Args:
        kind: After the warm-up: cosine or linear decay to min_ratio at the last step; inverse_sqrt,
            sqrt(warmup_steps / step), never below min_ratio; or constant.
        warmup_steps: Optimizer steps over which the factor rises linearly to 1 (step s has s / warmup_steps).
            inverse_sqrt needs at least 1.
        min_ratio: Lowest factor after the warm-up, between 0 and 1.
    """

    kind: Literal["cosine", "linear", "inverse_sqrt", "constant"] = "cosine"
    warmup_steps: int = 100
    min_ratio: float = 0.1

    def validate(self, field: str, training_steps: int) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if not 0 <= self.warmup_steps <= training_steps:
            raise ConfigError(
                f"{field}.warmup_steps is {self.warmup_steps}: it must be between 0 and {training_steps}, "
                f"the number of training steps"
            )
        if self.kind == "inverse_sqrt" and self.warmup_steps < 1:
            raise ConfigError(f"{field}.warmup_steps is {self.warmup_steps}: inverse_sqrt needs at least 1")
        if not 0.0 <= self.min_ratio <= 1.0:
            raise ConfigError(f"{field}.min_ratio is {self.min_ratio}: it must be between 0 and 1")


def learning_rate_factor(config: LearningRateConfig, step: int, training_steps: int) -> float:
    """Factor of the base learning rate at optimizer step ``step``, counted from 1.

    Inverse square root as in Raffel et al. 2020 (T5); cosine as in Loshchilov & Hutter 2017, without restarts.
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    if config.kind == "constant":
        return 1.0
    if config.kind == "inverse_sqrt":
        return max(config.min_ratio, math.sqrt(config.warmup_steps / step))
    progress = min(1.0, (step - config.warmup_steps) / max(1, training_steps - config.warmup_steps))
    decay = 0.5 * (1.0 + math.cos(math.pi * progress)) if config.kind == "cosine" else 1.0 - progress
    return config.min_ratio + (1.0 - config.min_ratio) * decay


def build_lr_scheduler(optimizer: Optimizer, config: LearningRateConfig, training_steps: int) -> LambdaLR:
    """A scheduler to hand to DeepSpeed, which steps it after each applied optimizer step."""
    return LambdaLR(optimizer, lambda done: learning_rate_factor(config, done + 1, training_steps))
