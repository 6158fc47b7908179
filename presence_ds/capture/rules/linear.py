"""`torch.nn.Linear`: y = a Wᵀ + b, so G_i = Σ_t δ_t ⊗ a_t for W and Σ_t δ_t for b."""

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import register


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, anchor: Tensor, module: nn.Linear, capture: Capture) -> Tensor:
        ctx.save_for_backward(a)
        ctx.module, ctx.capture = module, capture
        return F.linear(a, module.weight, _bias(module))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = grad_outputs
        module, capture = ctx.module, ctx.capture
        # The weight is reached through the module, not saved: under ZeRO-3 only the module has it gathered now. Before
        # the saved input, for which activation checkpointing may run the module again, which gives it up afterwards.
        weight = module.weight.detach()
        (a,) = ctx.saved_tensors
        capture.add_outer(module.weight, rows=delta, cols=a)
        if _bias(module) is not None:
            capture.add_dense(_bias(module), capture.sum_positions(delta))
        grad_input = delta @ weight if ctx.needs_input_grad[0] else None
        return grad_input, None, None, None


def _bias(module: nn.Module) -> Any:
    return getattr(module, "bias", None)  # routers of experts have a weight alone


@register(nn.Linear)
def linear(module: nn.Linear, capture: Capture, a: Tensor) -> Tensor:
    """``a`` [B·…, p] to [B·…, q]."""
    capture.check_samples_first(module, a, "input")
    capture.expect(module.weight, _bias(module))
    return _Linear.apply(a, capture.anchor, module, capture)
