"""Cross-entropy of language models by sample or document, in chunks: no float32 copy of the logits is ever whole."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from presence_ds.capture import Documents
from presence_ds.influence.kernels.trial import passes

IGNORED = -100
MAX_ELEMENTS = 1 << 20  # of a chunk of float32 logits: 4 MiB, so that its passes stay in a CPU's cache
MAX_ELEMENTS_OF_GPU = 1 << 25  # 128 MiB, so that its passes take longer than they take to launch

# What ∂ℓ/∂logits is kept in: the loss scale of fp16 comes with the backward, and small probabilities must survive till
# then. The largest is 1, and 2^14 fits.
_UNITS = {torch.float16: 2.0**14}

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
        kernels: whether to use a kernel where one can be, which changes nothing but rounding.
    """

    normalizer: Normalizer = "token_mean"
    shifted: bool = False
    kernels: bool = True

    def __call__(self, logits: Tensor, labels: Tensor, documents: Documents | None = None) -> Tensor:
        """Losses of a micro-batch.

        Args:
            logits: [B, T, V], any floating dtype.
            labels: [B, T] int64; −100 is ignored.
            documents: what losses are of, in the place of samples. Of a causal model's document the first token is no
                target, as there is none before it.

        Returns:
            [B], or [P] by document, float32 (float64 for float64 logits), differentiable once; 0 without target tokens.
        """
        targets = self._targets(labels, documents)
        counts = _counts(targets, documents).clamp(min=1)
        wide = torch.promote_types(logits.dtype, torch.float32)
        by_position = self._by_position(logits, targets)
        losses = by_position.sum(1) if documents is None else documents.targets.sum(by_position)
        if self.normalizer == "sum":
            return losses
        return losses / (counts.to(wide) if self.normalizer == "token_mean" else self.normalizer)

    def by_position(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of every position's target, in nats, not divided: [B, T] as above; 0 without a target."""
        return self._by_position(logits, self._targets(labels, None))

    def num_targets(self, labels: Tensor, documents: Documents | None = None) -> Tensor:
        """Target tokens of each sample or document, int64: the first label of a causal model's is none."""
        return _counts(self._targets(labels, documents), documents)

    def _by_position(self, logits: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = _CrossEntropy.apply(logits, targets, self.kernels)
        return losses

    def _targets(self, labels: Tensor, documents: Documents | None) -> Tensor:
        if self.shifted:
            return labels
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        if documents is not None:
            numbers = documents.targets.ids
            targets = targets.masked_fill(numbers != numbers.roll(-1, 1), IGNORED)
        return targets


def _counts(targets: Tensor, documents: Documents | None) -> Tensor:
    kept = targets != IGNORED
    if documents is None:
        return kept.sum(1)
    return documents.targets.sum(kept.float()).long()


class _CrossEntropy(Function):
    """Of every target, 0 elsewhere: [B, T]. ∂ℓ/∂logits, in their dtype, is kept from the forward in their place.

    So there is one softmax, the pass over a chunk that torch has a fast kernel for; the largest probability, 1 / Σ_v
    exp(logit_v − the largest logit), tells the normaliser that the loss needs.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, kernels: bool) -> Tensor:
        if kernels and _has_kernel(logits):
            return _by_kernel(ctx, logits, targets)
        wide = torch.promote_types(logits.dtype, torch.float32)
        flat, kept = logits.flatten(0, 1), (targets != IGNORED).flatten()  # [B·T, V], [B·T]
        index = targets.flatten().masked_fill(~kept, 0).unsqueeze(1)  # valid everywhere
        largest, probability = flat.new_empty(2, len(flat), dtype=wide)
        derivative = torch.empty_like(flat) if ctx.needs_input_grad[0] else None
        unit = _UNITS.get(logits.dtype, 1.0)
        minus = flat.new_full((len(flat), 1), -unit, dtype=wide)
        for part in _chunks(flat):
            p = flat[part].softmax(1, dtype=wide)
            largest[part] = flat[part].amax(1)
            probability[part] = p.amax(1)
            if derivative is not None:
                p = p if unit == 1.0 else p.mul_(unit)
                derivative[part] = p.scatter_add_(1, index[part], minus[part])  # one a row: no order to add in
        losses = largest - flat.gather(1, index).squeeze(1).to(wide) - probability.log_()
        if derivative is not None:
            if flat.is_cpu:  # these rows alone; on a GPU without waiting for their number
                derivative.index_fill_(0, (~kept).nonzero().squeeze(1), 0.0)
            else:
                derivative.masked_fill_(~kept.unsqueeze(1), 0.0)
            ctx.save_for_backward(derivative.view_as(logits))
        return torch.where(kept, losses, 0.0).view(targets.shape)  # ignored positions may hold anything

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        flat = derivative.flatten(0, 1)
        factors = (grad_outputs[0] / _UNITS.get(flat.dtype, 1.0)).reshape(-1, 1)
        gradient = torch.empty_like(flat)
        for part in _chunks(flat):
            gradient[part] = flat[part] * factors[part]  # the product in the dtype of the losses
        return gradient.view_as(derivative), None, None


def _by_kernel(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
    from presence_ds.influence.kernels.cross_entropy import cross_entropy

    unit, derive = _UNITS.get(logits.dtype, 1.0), ctx.needs_input_grad[0]
    losses, derivative = cross_entropy(logits.flatten(0, 1), targets.flatten(), IGNORED, unit, derive=derive)
    if derivative is not None:
        ctx.save_for_backward(derivative.view_as(logits))
    return losses.view_as(targets)


def _has_kernel(logits: Tensor) -> bool:
    def compare(dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
        from presence_ds.influence.kernels import cross_entropy

        return cross_entropy.compare(dtype, device, logits.shape[-1], _UNITS.get(dtype, 1.0))

    return passes("cross_entropy", logits, logits.shape[-1], compare)


def _chunks(flat: Tensor) -> list[slice]:
    elements = MAX_ELEMENTS if flat.is_cpu else MAX_ELEMENTS_OF_GPU
    step = max(1, elements // flat.shape[1])
    return [slice(start, start + step) for start in range(0, len(flat), step)]
