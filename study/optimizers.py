"""Optimizers that cost nothing and claim in part what weights of samples claim: what those have to be better than.

They are no part of the trainer. `register` puts them among its kinds, in a process of the study alone.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from presence_ds.trainer.building.optimizer import MAKE
from presence_ds.trainer.building.optimizer_config import KINDS, Kind


class ClippedTensors(torch.optim.AdamW):
    """AdamW of gradients that are clipped tensor by tensor: AdaGC of Wang et al. (arXiv 2502.11034), its algorithm 1.

    A tensor's gradient is at most ``relative`` times as long as the running mean of what it was clipped to before.
    In the first ``warmup`` steps the tensors of a group are clipped as one, at length 1, and the least length so far is
    in the place of the running mean.
    """

    def __init__(self, params: Any, relative: float = 1.05, decay: float = 0.98, warmup: int = 60, **options: Any):
        super().__init__(params, **options)
        self._relative, self._decay, self._warmup = relative, decay, warmup
        for group in self.param_groups:  # which ZeRO gives one flat tensor each, and steps one by one
            sizes = [parameter.numel() for parameter in group["params"]]
            group |= {"sizes": sizes, "bounds": torch.full((len(sizes),), math.inf), "steps": 0}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        for group in self.param_groups:
            parts = _parts(group)
            lengths = torch.stack([part.norm() for part in parts])
            bounds = group["bounds"].to(lengths.device)
            if group["steps"] < self._warmup:
                factors = (1.0 / lengths.norm()).clamp(max=1.0).expand_as(lengths)
                group["bounds"] = torch.minimum(bounds, factors * lengths)
            else:
                factors = (self._relative * bounds / lengths).clamp(max=1.0)
                group["bounds"] = torch.lerp(factors * lengths, bounds, self._decay)
            for part, factor in zip(parts, factors, strict=True):
                part.mul_(factor)
            group["steps"] += 1
        return super().step(closure)


def _parts(group: dict[str, Any]) -> list[Tensor]:
    """The gradients of a group's tensors; of a flat one views, in their order: at its end there is padding."""
    gradients, sizes = [parameter.grad for parameter in group["params"]], group["sizes"]
    if len(gradients) == len(sizes):
        return gradients
    (flat,) = gradients
    return list(flat.split([*sizes, flat.numel() - sum(sizes)]))[:-1]


class ShrunkEntries(torch.optim.AdamW):
    """AdamW of gradients that are shrunk entry by entry by how much of them was signal so far.

    With running means m of the gradient and v of its square, an entry is multiplied by m²/(m² + s(v − m²)), where
    s = (1 − decay)/(1 + decay): the share of m² that is not the noise of m itself, as James and Stein shrink.
    """

    def __init__(self, params: Any, decay: float = 0.95, **options: Any):
        super().__init__(params, **options)
        self._decay = decay
        self._means: dict[Tensor, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        noise = (1.0 - self._decay) / (1.0 + self._decay)
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if parameter not in self._means:
                    self._means[parameter] = torch.zeros_like(gradient), torch.zeros_like(gradient)
                mean, square = self._means[parameter]
                mean.lerp_(gradient, 1.0 - self._decay)
                square.lerp_(gradient.square(), 1.0 - self._decay)
                signal = mean.square()
                gradient.mul_(signal / (signal + noise * (square - signal).clamp_(min=0.0) + 1e-30))
        return super().step(closure)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "clipped_tensors": ClippedTensors,
    "shrunk_entries": ShrunkEntries,
}


def register() -> None:
    """Make them kinds of the ``optimizer`` section of recipes."""
    for name, make in OPTIMIZERS.items():
        KINDS[name] = Kind(moments=2)
        MAKE[name] = make
