"""`torch.nn.Embedding`: G_i = Σ_t e(x_t) ⊗ δ_t, nothing for the padding index."""

from torch import Tensor, nn
from torch.nn import functional as F

from presence_ds.capture.registry import register
from presence_ds.capture.rule import Rule


@register(nn.Embedding)
class Embedding(Rule):
    """``ids`` [B, …] to [B, …, C].

    Position embeddings are often fed one row of ids, [1, T], for the whole batch; autograd would then sum their
    output gradient over the samples before this rule sees it, so the row is repeated for every sample.
    """

    def __call__(self, ids: Tensor) -> Tensor:
        if ids.dim() > 1 and ids.shape[0] == 1:
            ids = ids.expand(self.capture.batch_size, *ids.shape[1:])
        return super().__call__(ids)

    def parameters(self) -> tuple[Tensor]:
        return (self.module.weight,)

    def held(self) -> None:
        return None

    def forward(self, ids: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        return F.embedding(ids, self.module.weight), (ids,)

    def backward(self, held: None, delta: Tensor, ids: Tensor) -> None:
        padding_idx = self.module.padding_idx
        if padding_idx is not None:
            delta = delta.masked_fill((ids == padding_idx).unsqueeze(-1), 0.0)
        self.capture.add_lookup(self.module.weight, ids, delta)
