"""`torch.nn.LayerNorm`, with and without bias: G_i = Σ_t x̂_t ⊙ δ_t for the scale and Σ_t δ_t for the bias."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import register


class _LayerNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, module: nn.LayerNorm, capture: Capture) -> Tensor:
        output, mean, rstd = torch.native_layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)
        ctx.save_for_backward(x, mean, rstd)
        ctx.module, ctx.capture = module, capture
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = grad_outputs
        module, capture = ctx.module, ctx.capture
        # first, as in the rule of linear layers
        weight, bias = (None if p is None else p.detach() for p in (module.weight, module.bias))
        x, mean, rstd = ctx.saved_tensors
        capture.add_dense(module.weight, capture.sum_positions((x - mean) * rstd * delta))
        if module.bias is not None:
            capture.add_dense(module.bias, capture.sum_positions(delta))
        grad_input = None
        if ctx.needs_input_grad[0]:
            grad_input, _, _ = torch.ops.aten.native_layer_norm_backward(
                delta.contiguous(), x, module.normalized_shape, mean, rstd, weight, bias,
                [True, False, False],
            )  # fmt: skip
        return grad_input, None, None, None


@register(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, capture: Capture, x: Tensor) -> Tensor:
    """``x`` [B·…, p], normalised over its last dimension."""
    capture.check_samples_first(module, x, "input")
    capture.expect(module.weight, module.bias)
    return _LayerNorm.apply(x, capture.anchor, module, capture)
