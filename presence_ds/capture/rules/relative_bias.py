"""Relative position bias of T5 and its kin: one table entry per head and bucket, added to the scores of every sample.

``compute_bias`` looks the buckets [q, k] up in the embedding ``relative_attention_bias`` and gives [1, …, H, q, k],
which the attention broadcasts. Autograd would add up the samples before anyone saw them, so the rule repeats the bias
for every sample (a view, no copy) and receives δ [B, …, H, q, k]. Then G_i[r, h] = Σ_{q,k: bucket = r} δ_i[h, q, k].
"""

from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import register_where
from presence_ds.capture.rule import Rule
from presence_ds.capture.terms import widen
from presence_ds.errors import AttributionError


def _computes_bias(module: nn.Module) -> bool:
    table = getattr(module, RelativeBias.holder, None)
    return hasattr(type(module), RelativeBias.method) and isinstance(table, nn.Embedding)


@register_where(_computes_bias)
class RelativeBias(Rule):
    """Arguments of the module's own ``compute_bias`` to its result for every sample, [B, …, H, q, k]."""

    method, holder = "compute_bias", "relative_attention_bias"

    def __init__(self, module: Any, capture: Capture) -> None:
        super().__init__(module, capture)
        self.table: nn.Embedding = module.relative_attention_bias

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        seen: list[Tensor] = []
        handle = self.table.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            with torch.no_grad():
                bias = type(self.module).compute_bias(self.module, *args, **kwargs)
        finally:
            handle.remove()
        (buckets,) = seen
        if bias.shape[-3:] != (self.table.embedding_dim, *buckets.shape) or bias.numel() != bias.shape[-3:].numel():
            raise AttributionError(
                f"module {self.capture.names[self.module]} ({type(self.module).__name__}) computes a relative position "
                f"bias of shape {list(bias.shape)} from buckets of shape {list(buckets.shape)}: no layer rule is "
                f"written for any but [1, heads, queries, keys]"
            )
        return self.record(buckets, bias)

    def parameters(self) -> tuple[Tensor]:
        return (self.table.weight,)

    def held(self) -> None:
        return None

    def forward(self, buckets: Tensor, bias: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        return bias.expand(self.capture.batch_size, *bias.shape[1:]), (buckets,)

    def backward(self, held: None, delta: Tensor, buckets: Tensor) -> tuple[None, None]:
        # A product with a one-hot matrix: no wider than δ itself, and unlike a scatter the same to the bit every time.
        chosen = buckets.unsqueeze(-1) == torch.arange(self.table.num_embeddings, device=buckets.device)  # [q, k, R]
        delta = widen(delta).reshape(self.capture.batch_size, self.table.embedding_dim, *buckets.shape)
        chosen = chosen.to(delta.dtype)
        if self.capture.documents is None:
            self.capture.add_dense(self.table.weight, (delta.flatten(2) @ chosen.flatten(0, 1)).mT)
            return None, None
        by_query = delta.permute(2, 0, 1, 3).flatten(1, 2) @ chosen  # [q, B·H, R]
        by_query = by_query.unflatten(1, delta.shape[:2]).permute(1, 0, 3, 2)  # [B, q, R, H]
        self.capture.add_dense(self.table.weight, self.capture.documents.places(by_query.shape[:2]).sum(by_query))
        return None, None
