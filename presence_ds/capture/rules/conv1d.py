"""The `Conv1D` of transformers (GPT-2): a linear layer whose weight is stored [inputs, outputs], so G_i = Σ_t a_t
⊗ δ_t."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from transformers.pytorch_utils import Conv1D

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import register


class _Conv1D(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, anchor: Tensor, module: Conv1D, capture: Capture) -> Tensor:
        ctx.save_for_backward(a)
        ctx.module, ctx.capture = module, capture
        output = torch.addmm(module.bias, a.reshape(-1, a.shape[-1]), module.weight)
        return output.view(*a.shape[:-1], output.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = grad_outputs
        module, capture = ctx.module, ctx.capture
        weight = module.weight.detach()  # first, as in the rule of linear layers
        (a,) = ctx.saved_tensors
        capture.add_outer(module.weight, rows=a, cols=delta)
        capture.add_dense(module.bias, capture.sum_positions(delta))
        grad_input = delta @ weight.mT if ctx.needs_input_grad[0] else None
        return grad_input, None, None, None


@register(Conv1D)
def conv1d(module: Conv1D, capture: Capture, x: Tensor) -> Tensor:
    """``x`` [B·…, p] to [B·…, q]."""
    capture.check_samples_first(module, x, "input")
    capture.expect(module.weight, module.bias)
    return _Conv1D.apply(x, capture.anchor, module, capture)
