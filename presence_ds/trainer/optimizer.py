"""The optimizer, with weight decay on matrices only."""

from dataclasses import dataclass
from typing import Literal

import torch

from presence_ds.errors import ConfigError


@dataclass
class OptimizerConfig:
    """The optimizer of the run; DeepSpeed shards its state. The DeepSpeed JSON must not name another.

    Args:
        kind: adamw (DeepSpeed's CPU implementation where the DeepSpeed JSON offloads the optimizer to the CPU), or sgd.
        lr: Base learning rate, multiplied by the factor of lr_schedule.
        betas: Decay rates of AdamW's two moments. Unused by sgd.
        eps: Added to AdamW's denominator. Unused by sgd.
        momentum: Momentum of SGD, 0 for none. Unused by adamw.
        weight_decay: Decay per unit of learning rate, on parameters with two or more dimensions; vectors (biases and
            norm scales) have none.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.1

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if not 0.0 < self.lr < float("inf"):
            raise ConfigError(f"{field}.lr is {self.lr}: it must be above 0")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(f"{field}.betas is {list(self.betas)}: both must be at least 0 and below 1")
        if not self.eps > 0.0:
            raise ConfigError(f"{field}.eps is {self.eps}: it must be above 0")
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"{field}.momentum is {self.momentum}: it must be at least 0 and below 1")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"{field}.weight_decay is {self.weight_decay}: it must be 0 or more")


MOMENTS = {"adamw": 2, "sgd": 0}  # float32 tensors of state per parameter; momentum adds one


def build_optimizer(
    model: torch.nn.Module, config: OptimizerConfig, *, offloaded_to_cpu: bool
) -> torch.optim.Optimizer:
    """The optimizer over the model's trainable parameters.

    Args:
        offloaded_to_cpu: Whether ZeRO keeps the optimizer state on the CPU; AdamW then is ``DeepSpeedCPUAdam``, which
            is compiled at first use.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    if offloaded_to_cpu:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups, lr=config.lr, betas=config.betas, eps=config.eps, adamw_mode=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
