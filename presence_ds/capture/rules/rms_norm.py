"""RMSNorm in every spelling: `torch.nn.RMSNorm`, and the classes of transformers, T5's LayerNorm among them.

They differ in the name of ε, in where they round and in whether the scale is w or 1 + w, so the rule does not re-write
them: it runs the module's own forward with the scale repeated for every sample, [B, 1, …, p] in place of [p], and lets
autograd give the gradient of the repeated scale, which is the per-sample gradient.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from presence_ds.capture.capture import Capture, full_shape
from presence_ds.capture.registry import register, register_where


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, module: Any, capture: Capture) -> Tensor:
        batch_size = capture.batch_size
        with torch.enable_grad():
            leaf = x.detach().reshape(batch_size, -1, *x.shape[1:]).requires_grad_()
            # A copy: a view would keep the gathered parameter of ZeRO-3 alive until the backward pass.
            scale = module.weight.detach().clone().expand(batch_size, *[1] * (leaf.dim() - 2), -1).requires_grad_()
            output = _apply(module, scale, leaf)
        ctx.inputs, ctx.output = (leaf, scale), output
        ctx.module, ctx.capture = module, capture
        return output.detach().view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = grad_outputs
        grad_input, grad_scale = torch.autograd.grad(ctx.output, ctx.inputs, delta.reshape(ctx.output.shape))
        ctx.inputs = ctx.output = None
        ctx.capture.add_dense(ctx.module.weight, grad_scale.flatten(0, -2))
        return grad_input.view_as(delta), None, None, None


def _apply(module: nn.Module, scale: Tensor, x: Tensor) -> Tensor:
    if isinstance(module, nn.RMSNorm):  # its kernel takes a scale of the normalised shape only
        return F.rms_norm(x, module.normalized_shape, None, module.eps) * scale
    # An instance attribute hides the parameter of the same name; a call of the module would run hooks and this rule
    # again.
    module.__dict__["weight"] = scale
    try:
        return type(module).forward(module, x)
    finally:
        del module.__dict__["weight"]


def _is_rms_norm(module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False))
    named_so = "rmsnorm" in type(module).__name__.lower() or type(module).__name__.endswith("T5LayerNorm")
    if not named_so or list(own) != ["weight"] or len(full_shape(own["weight"])) != 1 or any(module.children()):
        return False
    return (
        len(inspect.signature(type(module).forward).parameters) == 2
    )  # self and x: a gate would need a rule of its own


@register(nn.RMSNorm)
@register_where(_is_rms_norm)
def rms_norm(module: Any, capture: Capture, x: Tensor) -> Tensor:
    """``x`` [B·…, p], normalised over its last dimension."""
    capture.check_samples_first(module, x, "input")
    capture.expect(module.weight)
    return _RMSNorm.apply(x, capture.anchor, module, capture)
