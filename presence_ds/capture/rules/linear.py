"""`torch.nn.Linear`: y = a Wᵀ + b, so G_i = Σ_t δ_t ⊗ a_t for W and Σ_t δ_t for b."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from presence_ds.capture.registry import register
from presence_ds.capture.rule import Rule


@register(nn.Linear)
class Linear(Rule):
    """``a`` [B·…, p] to [B·…, q]."""

    def record(self, a: Tensor) -> Any:
        self._sharers = self.capture.share(self.module.weight, a)
        return super().record(a)

    def forward(self, a: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        return F.linear(a, self.module.weight, self.bias), (a,)

    def backward(self, weight: Tensor, delta: Tensor, a: Tensor) -> Tensor | None:
        self.capture.add_outer(self.module.weight, delta, a, self._sharers)
        self.capture.add_summed(self.bias, delta)
        return delta @ weight if self.wanted[0] else None
