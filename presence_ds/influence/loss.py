"""Per-sample cross-entropy of language models, in chunks: no float32 copy of the logits is ever whole."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

IGNORED = -100
MAX_ELEMENTS = 1 << 20  # of a chunk of float32 logits: 4 MiB, so that its passes stay in cache

Normalizer = Literal["token_mean", "sum"] | float


@dataclass(frozen=True)
class SampleLoss:
    """ℓ of a sample: the cross-entropy of its target tokens, added up and divided.

    Attributes:
        normalizer: token_mean divides by the sample's own number of target tokens, so that ℓ is in nats per token;
            sum does not divide; a number divides by it, for every sample alike (229 targets per sample and the mean
            over a batch of 1024 samples are the paper's constant for mT5-base, 234496).
        shifted: whether the target of position t is ``labels[t]`` (encoder-decoder models) rather than ``labels[t +
            1]`` (causal models).
    """

    normalizer: Normalizer = "token_mean"
    shifted: bool = False

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Losses of a micro-batch.

        Args:
            logits: [B, T, V], any floating dtype.
            labels: [B, T] int64; −100 is ignored.

        Returns:
            [B] float32 (float64 for float64 logits), differentiable once; 0 for a sample without target tokens.
        """
        targets = labels if self.shifted else F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        counts = (targets != IGNORED).sum(1).clamp(min=1)
        wide = torch.promote_types(logits.dtype, torch.float32)
        losses: Tensor = _CrossEntropySum.apply(logits, targets)
        if self.normalizer == "sum":
            return losses
        return losses / (counts.to(wide) if self.normalizer == "token_mean" else self.normalizer)


class _CrossEntropySum(Function):
    """Σ_t over the targets of each sample; its backward repeats the exponentials instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        wide = torch.promote_types(logits.dtype, torch.float32)
        flat, index, kept = _flatten(logits, targets)
        log_z = flat.new_empty(len(flat), dtype=wide)
        for part in _chunks(flat):
            log_z[part] = flat[part].to(wide).logsumexp(1)
        losses = log_z - flat.gather(1, index).squeeze(1).to(wide)
        ctx.save_for_backward(logits, targets, log_z)
        return torch.where(kept, losses, 0.0).view(targets.shape).sum(1)  # ignored positions may hold anything

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        logits, targets, log_z = ctx.saved_tensors
        flat, index, kept = _flatten(logits, targets)
        factors = (grad_outputs[0].unsqueeze(1) * kept.view(targets.shape)).view(-1, 1).to(log_z.dtype)
        gradient = torch.empty_like(flat)
        for part in _chunks(flat):
            p = flat[part].to(log_z.dtype, copy=True).sub_(log_z[part, None]).exp_().mul_(factors[part])
            p.scatter_add_(1, index[part], -factors[part])
            gradient[part] = p.masked_fill_(~kept[part, None], 0.0)  # 0 times what is ignored need not be 0
        return gradient.view_as(logits), None


def _flatten(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits as [B·T, V], targets as an index [B·T, 1] that is valid everywhere, and where there is a target, [B·T]."""
    kept = (targets != IGNORED).flatten()
    return logits.flatten(0, 1), targets.flatten().masked_fill(~kept, 0).unsqueeze(1), kept


def _chunks(flat: Tensor) -> list[slice]:
    step = max(1, MAX_ELEMENTS // flat.shape[1])
    return [slice(start, start + step) for start in range(0, len(flat), step)]
