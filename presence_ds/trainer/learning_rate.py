"""Learning-rate schedules: a linear warm-up, then cosine, linear, inverse square root, WSD or constant."""

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
            sqrt(warmup_steps / step), never below min_ratio; wsd (warm-up, stable, decay), 1 until the last decay_steps
            steps, over which it falls to min_ratio; or constant.
        warmup_steps: Optimizer steps over which the factor rises linearly to 1 (step s has s / warmup_steps).
            inverse_sqrt needs at least 1.
        min_ratio: Lowest factor after the warm-up, between 0 and 1.
        decay_steps: Steps of wsd's decay. null: a tenth of all steps. Not for the other kinds, which decay throughout.
        decay_shape: How wsd decays: linear, cosine, or sqrt (1 - sqrt(share of the decay that is over)).
    """

    kind: Literal["cosine", "linear", "inverse_sqrt", "wsd", "constant"] = "cosine"
    warmup_steps: int = 100
    min_ratio: float = 0.1
    decay_steps: int | None = None
    decay_shape: Literal["linear", "cosine", "sqrt"] = "linear"

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
        if self.kind != "wsd":
            if self.decay_steps is not None:
                raise ConfigError(
                    f"{field}.decay_steps is {self.decay_steps} with kind {self.kind}: it must be null, or kind wsd"
                )
            return
        decay_steps = self.wsd_decay_steps(training_steps)
        default = " by default" if self.decay_steps is None else ""
        if decay_steps < 1 or decay_steps + self.warmup_steps > training_steps:
            raise ConfigError(
                f"{field}.decay_steps is {decay_steps}{default}: it must be at least 1, and with "
                f"{field}.warmup_steps {self.warmup_steps} at most the {training_steps} training steps"
            )

    def wsd_decay_steps(self, training_steps: int) -> int:
        """Steps of wsd's decay in a run of ``training_steps``."""
        return max(1, training_steps // 10) if self.decay_steps is None else self.decay_steps


def learning_rate_factor(config: LearningRateConfig, step: int, training_steps: int) -> float:
    """Factor of the base learning rate at optimizer step ``step``, counted from 1.

    Inverse square root as in Raffel et al. 2020 (T5); cosine as in Loshchilov & Hutter 2017, without restarts; WSD as
    in Hu et al. 2024 (MiniCPM), its shape sqrt as in Hägele et al. 2024.
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    if config.kind == "constant":
        return 1.0
    if config.kind == "inverse_sqrt":
        return max(config.min_ratio, math.sqrt(config.warmup_steps / step))
    if config.kind == "wsd":
        decay_steps, shape = config.wsd_decay_steps(training_steps), config.decay_shape
    else:
        decay_steps, shape = training_steps - config.warmup_steps, config.kind
    begin = training_steps - decay_steps
    progress = min(1.0, max(0.0, (step - begin) / max(1, decay_steps)))
    return config.min_ratio + (1.0 - config.min_ratio) * _remaining(shape, progress)


def _remaining(shape: str, progress: float) -> float:
    """What a decay of 1 to 0 has left at ``progress``, between 0 and 1."""
    if shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - (math.sqrt(progress) if shape == "sqrt" else progress)


def build_lr_scheduler(optimizer: Optimizer, config: LearningRateConfig, training_steps: int) -> LambdaLR:
    """A scheduler to hand to DeepSpeed, which steps it after each applied optimizer step."""
    return LambdaLR(optimizer, lambda done: learning_rate_factor(config, done + 1, training_steps))
