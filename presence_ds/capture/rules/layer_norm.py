"""`torch.nn.LayerNorm`, with and without bias: G_i = Σ_t x̂_t ⊙ δ_t for the scale and Σ_t δ_t for the bias."""

import torch
from torch import Tensor, nn

from presence_ds.capture.registry import register
from presence_ds.capture.rule import Rule
from presence_ds.capture.terms import wide


@register(nn.LayerNorm)
class LayerNorm(Rule):
    """``x`` [B·…, p], normalised over its last dimension."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        norm = self.module
        output, mean, rstd = torch.native_layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return output, (x, mean, rstd)

    def backward(self, weight: Tensor, delta: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor | None:
        if x.dtype == wide(x.dtype):
            normalized = (x - mean).mul_(rstd)
        else:  # what has the statistics in it would be as wide as they are, float32
            normalized, _, _ = torch.native_layer_norm(x, self.module.normalized_shape, None, None, self.module.eps)
        self.capture.add_summed(self.module.weight, normalized.mul_(delta))
        self.capture.add_summed(self.bias, delta)
        if not self.wanted[0]:
            return None
        gradient: Tensor
        gradient, _, _ = torch.ops.aten.native_layer_norm_backward(
            delta.contiguous(), x, self.module.normalized_shape, mean, rstd, weight, None, [True, False, False]
        )
        return gradient
