"""The optimizer: element-wise ones alone, since ZeRO flattens parameters; with weight decay on matrices only."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from presence_ds.errors import ConfigError


@dataclass
class OptimizerConfig:
    """The optimizer of the run; DeepSpeed shards its state. The DeepSpeed JSON must not name another.

    Args:
        kind: adamw; adam (its weight decay is added to the gradient); amsgrad (adamw with the largest second moment
            so far); nadam and radam (weight decay as adamw's); adamax (as adam's); or sgd. Where the DeepSpeed JSON
            offloads the optimizer to the CPU, adamw and adam are DeepSpeed's CPU implementation.
        lr: Base learning rate, multiplied by the factor of lr_schedule.
        betas: Decay rates of the two moments. Unused by sgd.
        eps: Added to the denominator. Unused by sgd.
        momentum: Momentum of sgd, 0 for none; for no other kind.
        weight_decay: Decay per unit of learning rate, on parameters with two or more dimensions; vectors (biases and
            norm scales) have none.
        no_decay: Shell-style patterns on the names of further parameters without weight decay, such as ["*embed*"].
        implementation: How torch computes the update: fused (one kernel), foreach (one kernel per operation), for_loop,
            or auto, torch's own choice. Not where DeepSpeed's CPU implementation is used; fused for adamw, adam,
            amsgrad and sgd alone.
    """

    kind: str = "adamw"
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.1
    no_decay: list[str] = field(default_factory=list)
    implementation: Literal["auto", "fused", "foreach", "for_loop"] = "auto"

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if self.kind.lower() in REFUSED:
            raise ConfigError(
                f"{field}.kind is {self.kind}, which {REFUSED[self.kind.lower()]}: ZeRO flattens parameters into "
                f"one-dimensional shards, where that is lost; use one that works element by element: {', '.join(KINDS)}"
            )
        if self.kind not in KINDS:
            raise ConfigError(f'{field}.kind is "{self.kind}": it must be one of {", ".join(KINDS)}')
        if not 0.0 < self.lr < float("inf"):
            raise ConfigError(f"{field}.lr is {self.lr}: it must be above 0")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(f"{field}.betas is {list(self.betas)}: both must be at least 0 and below 1")
        if not 0.0 < self.eps < float("inf"):
            raise ConfigError(f"{field}.eps is {self.eps}: it must be above 0")
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"{field}.momentum is {self.momentum}: it must be at least 0 and below 1")
        if self.momentum > 0.0 and self.kind != "sgd":
            raise ConfigError(f"{field}.momentum is {self.momentum} with kind {self.kind}: it must be 0, or kind sgd")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"{field}.weight_decay is {self.weight_decay}: it must be 0 or more")
        if self.implementation == "fused" and not KINDS[self.kind].fused:
            raise ConfigError(f"{field}.implementation is fused, which {self.kind} does not have: use auto")

    def moments(self) -> int:
        """float32 tensors of state per parameter."""
        return KINDS[self.kind].moments + (self.momentum > 0.0)


@dataclass(frozen=True)
class Kind:
    """An optimizer of torch that works element by element, so that shards of a flattened parameter change alike.

    Attributes:
        make: takes parameter groups and options.
        moments: float32 tensors of state per parameter, without SGD's momentum.
        fused: whether torch has it as one kernel.
        listed: whether DeepSpeed lists it as tested with ZeRO.
    """

    make: Callable[..., Optimizer]
    moments: int
    fused: bool = False
    listed: bool = False


KINDS = {
    "adamw": Kind(torch.optim.AdamW, moments=2, fused=True, listed=True),
    "adam": Kind(torch.optim.Adam, moments=2, fused=True, listed=True),
    "amsgrad": Kind(partial(torch.optim.AdamW, amsgrad=True), moments=3, fused=True),
    "nadam": Kind(partial(torch.optim.NAdam, decoupled_weight_decay=True), moments=2),
    "radam": Kind(partial(torch.optim.RAdam, decoupled_weight_decay=True), moments=2),
    "adamax": Kind(torch.optim.Adamax, moments=2),
    "sgd": Kind(torch.optim.SGD, moments=0, fused=True),
}
WHOLE_MATRICES = "preconditions whole matrices"
REFUSED = {
    "adafactor": "keeps its second moments as sums over rows and columns of a matrix",
    "came": "keeps its second moments as sums over rows and columns of a matrix",
    "sm3": "keeps its second moments as maxima over rows and columns of a matrix",
    "muon": "orthogonalises the updates of whole matrices",
    "shampoo": WHOLE_MATRICES,
    "soap": WHOLE_MATRICES,
    "galore": "projects the gradients of whole matrices",
    "lamb": "scales updates by the norms of whole parameters",
    "lars": "scales updates by the norms of whole parameters",
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
    return KINDS[config.kind].make(groups, **options)


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
