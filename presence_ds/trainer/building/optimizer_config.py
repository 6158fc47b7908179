"""The ``optimizer`` section of a recipe, and the kinds of optimizers that there are."""

from dataclasses import dataclass, field
from typing import Literal

from presence_ds.errors import ConfigError
from presence_ds.sections import limited


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
    lr: float = limited(3e-4, above=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = limited(1e-8, above=0)
    momentum: float = limited(0.0, least=0, below=1)
    weight_decay: float = limited(0.1, least=0)
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
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ConfigError(f"{field}.betas is {list(self.betas)}: both must be at least 0 and below 1")
        if self.momentum > 0.0 and self.kind != "sgd":
            raise ConfigError(f"{field}.momentum is {self.momentum} with kind {self.kind}: it must be 0, or kind sgd")
        if self.implementation == "fused" and not KINDS[self.kind].fused:
            raise ConfigError(f"{field}.implementation is fused, which {self.kind} does not have: use auto")

    def moments(self) -> int:
        """float32 tensors of state per parameter."""
        return KINDS[self.kind].moments + (self.momentum > 0.0)


@dataclass(frozen=True)
class Kind:
    """An optimizer of torch that works element by element, so that shards of a flattened parameter change alike.

    Attributes:
        moments: float32 tensors of state per parameter, without SGD's momentum.
        fused: whether torch has it as one kernel.
        listed: whether DeepSpeed lists it as tested with ZeRO.
    """

    moments: int
    fused: bool = False
    listed: bool = False


KINDS = {
    "adamw": Kind(moments=2, fused=True, listed=True),
    "adam": Kind(moments=2, fused=True, listed=True),
    "amsgrad": Kind(moments=3, fused=True),
    "nadam": Kind(moments=2),
    "radam": Kind(moments=2),
    "adamax": Kind(moments=2),
    "sgd": Kind(moments=0, fused=True),
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
