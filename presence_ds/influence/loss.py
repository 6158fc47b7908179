"""Per-sample causal language-model losses, with their gradients."""

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
MAX_ELEMENTS = 1 << 20  # of a chunk of float32 logits: 4 MiB, so that its passes stay in cache


@torch.no_grad()
def causal_lm_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over the target tokens of every sample, and its gradient.

    The gradient is one softmax and every sample needs it, so it is computed on the way. Logits are widened chunk by
    chunk: no float32 copy of them is ever whole.

    Args:
        logits: [B, T, V], any floating dtype.
        labels: [B, T] int64, not shifted (the target of position t is labels[t + 1]); −100 is ignored.

    Returns:
        losses: [B] float32 (float64 for float64 logits), in nats per token; 0 for a sample without target tokens.
        gradient: of the sum of ``losses`` with respect to ``logits``, [B, T, V] in their dtype.
    """
    batch_size, positions, vocabulary = logits.shape
    wide = torch.promote_types(logits.dtype, torch.float32)
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    kept = targets != IGNORED
    factors = (kept.to(wide) / kept.sum(1, keepdim=True).clamp(min=1)).view(-1, 1)
    index = targets.masked_fill(~kept, 0).view(-1, 1)
    flat = logits.flatten(0, 1)
    gradient, losses = torch.empty_like(flat), torch.empty_like(factors)
    step = max(1, MAX_ELEMENTS // vocabulary)
    for start in range(0, flat.shape[0], step):
        part = slice(start, start + step)
        log_p = F.log_softmax(flat[part], dim=1, dtype=wide)
        losses[part] = log_p.gather(1, index[part]).neg_()
        p = log_p.exp_().mul_(factors[part])
        gradient[part] = p.scatter_add_(1, index[part], -factors[part])
    losses = torch.where(factors > 0, losses * factors, 0.0)  # what an ignored position holds may not be finite
    return losses.view(batch_size, positions).sum(1), gradient.view_as(logits)
