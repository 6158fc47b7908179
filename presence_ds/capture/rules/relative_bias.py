"""Relative position bias of T5 and its kin: one table entry per head and bucket, added to the scores of every sample.

``compute_bias`` looks the buckets [q, k] up in the embedding ``relative_attention_bias`` and gives [1, …, H, q, k],
which the attention broadcasts. Autograd would add up the samples before anyone saw them, so the rule repeats the bias
for every sample (a view, no copy) and receives δ [B, …, H, q, k]. Then G_i[r, h] = Σ_{q,k: bucket = r} δ_i[h, q, k].
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import register_method
from presence_ds.capture.terms import widen
from presence_ds.errors import AttributionError


class _RelativeBias(Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, buckets: Tensor, bias: Tensor, table: nn.Embedding, capture: Capture
    ) -> Tensor:
        ctx.save_for_backward(buckets)
        ctx.table, ctx.capture = table, capture
        return bias.expand(capture.batch_size, *bias.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, ...]:
        (delta,) = grad_outputs
        (buckets,) = ctx.saved_tensors
        table, capture = ctx.table, ctx.capture
        # A product with a one-hot matrix: no wider than δ itself, and unlike a scatter the same to the bit every time.
        chosen = buckets.flatten().unsqueeze(1) == torch.arange(table.num_embeddings, device=buckets.device)
        delta = widen(delta).reshape(capture.batch_size, table.embedding_dim, -1)
        capture.add_dense(table.weight, (delta @ chosen.to(delta.dtype)).mT)
        return None, None, None, None, None


@register_method("compute_bias", holder="relative_attention_bias")
def relative_bias(attention: Any, capture: Capture, *args: Any, **kwargs: Any) -> Tensor:
    """Arguments of the module's own ``compute_bias`` to its result for every sample, [B, …, H, q, k]."""
    table, seen = attention.relative_attention_bias, []
    handle = table.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            bias = type(attention).compute_bias(attention, *args, **kwargs)
    finally:
        handle.remove()
    (buckets,) = seen
    if bias.shape[-3:] != (table.embedding_dim, *buckets.shape) or bias.numel() != bias.shape[-3:].numel():
        raise AttributionError(
            f"module {capture.names[attention]} ({type(attention).__name__}) computes a relative position bias of "
            f"shape {list(bias.shape)} from buckets of shape {list(buckets.shape)}: no layer rule is written for any "
            f"but [1, heads, queries, keys]"
        )
    capture.expect(table.weight)
    return _RelativeBias.apply(capture.anchor, buckets, bias, table, capture)
