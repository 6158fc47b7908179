"""`torch.nn.Embedding`: G_i = Σ_t e(x_t) ⊗ δ_t, nothing for the padding index."""

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import register


class _Embedding(Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, anchor: Tensor, module: nn.Embedding, capture: Capture) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.module, ctx.capture = module, capture
        return F.embedding(ids, module.weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, ...]:
        (delta,) = grad_outputs
        (ids,) = ctx.saved_tensors
        if ctx.module.padding_idx is not None:
            delta = delta.masked_fill((ids == ctx.module.padding_idx).unsqueeze(-1), 0.0)
        ctx.capture.add_lookup(ctx.module.weight, ids, delta)
        return None, None, None, None


@register(nn.Embedding)
def embedding(module: nn.Embedding, capture: Capture, ids: Tensor) -> Tensor:
    """``ids`` [B, …] to [B, …, C].

    Position embeddings are often fed one row of ids, [1, T], for the whole batch; autograd would then sum their
    output gradient over the samples before this rule sees it, so the row is repeated for every sample.
    """
    if ids.dim() > 1 and ids.shape[0] == 1:
        ids = ids.expand(capture.batch_size, *ids.shape[1:])
    capture.check_samples_first(module, ids, "input")
    capture.expect(module.weight)
    return _Embedding.apply(ids, capture.anchor, module, capture)
