"""Learning-rate schedules: a linear warm-up, then cosine, linear, inverse square root, WSD or constant."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from presence_ds.trainer.building.learning_rate_config import LearningRateConfig


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
