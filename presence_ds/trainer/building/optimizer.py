"""The optimizer: element-wise ones alone, since ZeRO flattens parameters; with weight decay on matrices only."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from presence_ds.errors import ConfigError
from presence_ds.trainer.building.optimizer_config import KINDS, OptimizerConfig

MAKE: dict[str, Callable[..., Optimizer]] = {  # each takes parameter groups and options
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "amsgrad": partial(torch.optim.AdamW, amsgrad=True),
    "nadam": partial(torch.optim.NAdam, decoupled_weight_decay=True),
    "radam": partial(torch.optim.RAdam, decoupled_weight_decay=True),
    "adamax": torch.optim.Adamax,
    "sgd": torch.optim.SGD,
}


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig, *, offloaded_to_cpu: bool) -> Optimizer:
    """The optimizer over the model's trainable parameters.

    Args:
        offloaded_to_cpu: Whether ZeRO keeps the optimizer state on the CPU; adamw and adam then are
            ``DeepSpeedCPUAdam``, which is compiled at first use.

    Raises:
        ConfigError: a pattern of no_decay matches no parameter, or ``implementation`` cannot be chosen.
    """
    groups = decay_groups(model, config)
    if config.kind == "sgd":
        options: dict[str, Any] = {"lr": config.lr, "momentum": config.momentum}
    else:
        options = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    if offloaded_to_cpu and config.kind in ("adamw", "adam"):
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        if config.implementation != "auto":
            raise ConfigError(
                f"optimizer.implementation is {config.implementation}, and the optimizer is offloaded to the CPU, "
                f"where DeepSpeed has its own: use auto"
            )
        return DeepSpeedCPUAdam(groups, adamw_mode=config.kind == "adamw", **options)
    if config.implementation != "auto":
        options["foreach"] = config.implementation == "foreach"
        if KINDS[config.kind].fused:
            options["fused"] = config.implementation == "fused"
    return MAKE[config.kind](groups, **options)


def decay_groups(model: torch.nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameter groups, one with weight decay and one without; empty ones are left out.

    Raises:
        ConfigError: a pattern of no_decay matches no trainable parameter.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for pattern in config.no_decay:
        if not any(fnmatchcase(name, pattern) for name in trainable):
            raise ConfigError(
                f'optimizer.no_decay: "{pattern}" matches no trainable parameter; one is "{next(iter(trainable))}"'
            )

    def is_decayed(name: str) -> bool:
        return trainable[name].ndim >= 2 and not any(fnmatchcase(name, pattern) for pattern in config.no_decay)

    groups = [
        {"params": [p for name, p in trainable.items() if is_decayed(name)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in trainable.items() if not is_decayed(name)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
