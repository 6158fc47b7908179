"""y = h ⊙ (w + c) + b of what a norm has computed in the ordinary graph: G_i = Σ_t h_t ⊙ δ_t for w, Σ_t δ_t for b."""

from typing import Any

from torch import Tensor, nn

from presence_ds.capture.capture import Capture
from presence_ds.capture.rule import Rule
from presence_ds.capture.terms import scale, widen


def factor_of(weight: Tensor, offset: float) -> Tensor:
    """w + c, cut off from what becomes of the parameter; in float32 or wider where c is not 0."""
    weight = weight.detach()
    return widen(weight) + offset if offset else weight


class Scale(Rule):
    """``h`` [B·…, p], which is kept as a norm that is written out keeps it for its scale's gradient.

    Attributes:
        offset: c.
    """

    def __init__(self, module: nn.Module, capture: Capture, offset: float) -> None:
        super().__init__(module, capture)
        self.offset = offset

    def parameters(self) -> Any:
        return self.module.parameters(recurse=False)

    def held(self) -> Tensor:
        return factor_of(next(self.parameters()), self.offset)

    def forward(self, h: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        _, *bias = self.parameters()
        output = h * self.held()
        return (output + bias[0].detach() if bias else output), (h,)

    def backward(self, factor: Tensor, delta: Tensor, h: Tensor) -> Tensor | None:
        weight, *bias = self.parameters()
        self.capture.add_summed(weight, h * delta)
        if bias:
            self.capture.add_summed(bias[0], delta)
        return scale(delta, factor).to(h.dtype) if self.wanted[0] else None
