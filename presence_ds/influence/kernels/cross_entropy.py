"""One kernel for the cross-entropy of every position and ∂ℓ/∂logits: two readings of the logits and one writing.

The torch path makes a softmax in float32 of a chunk, its largest number, the losses and the derivative in some eight
passes over the chunk. Here a program has one position: it goes through its logits once for the largest one and the sum
of exponentials, and once more, mostly out of the cache, for the derivative.

The derivative is written beside the logits, not in their place: what a model does last, such as a soft cap, may keep
them for its own backward, and a kernel that overwrites them is seen by nobody.

Liger's kernel (liger-kernel 0.8.5) is not taken for it: it returns losses in the dtype of the logits, so that those of
bfloat16 have 8 bits; derivatives in float16 have no unit, so that small probabilities are lost before the loss scale
comes; it overwrites the logits; and its launch waits for the device three times, for the number of targets and their
bounds.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

_LARGEST_BLOCK = 4096  # logits that a program holds at a time


@triton.jit
def _cross_entropy(
    logits: tl.tensor,
    targets: tl.tensor,
    losses: tl.tensor,
    derivatives: tl.tensor,
    vocabulary: tl.tensor,
    stride: tl.tensor,
    ignored: tl.tensor,
    UNIT: tl.constexpr,
    DERIVE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    position = tl.program_id(0).to(tl.int64)  # there may be more than 2^31 logits
    logits += position * stride
    derivatives += position * vocabulary
    target = tl.load(targets + position)
    if target == ignored:  # these logits may hold anything
        tl.store(losses + position, 0.0)
        if DERIVE:
            for start in range(0, vocabulary, BLOCK):
                token = start + tl.arange(0, BLOCK)
                tl.store(derivatives + token, tl.zeros((BLOCK,), tl.float32), mask=token < vocabulary)
    else:
        largest = float("-inf")
        total = 0.0  # Σ exp(logit − largest)
        for start in range(0, vocabulary, BLOCK):
            token = start + tl.arange(0, BLOCK)
            x = tl.load(logits + token, mask=token < vocabulary, other=float("-inf")).to(tl.float32)
            larger = tl.maximum(largest, tl.max(x, 0))
            shift = tl.where(larger == float("-inf"), 0.0, larger)  # nothing but tokens that are ruled out so far
            total = total * tl.exp(largest - shift) + tl.sum(tl.exp(x - shift), 0)
            largest = larger
        exists = (target >= 0) & (target < vocabulary)
        own = tl.load(logits + target, mask=exists, other=float("nan")).to(tl.float32)
        tl.store(losses + position, largest - own + tl.log(total))
        if DERIVE:
            for start in range(0, vocabulary, BLOCK):
                token = start + tl.arange(0, BLOCK)
                x = tl.load(logits + token, mask=token < vocabulary, other=float("-inf")).to(tl.float32)
                derivative = tl.exp(x - largest) * (UNIT / total) - tl.where(token == target, UNIT, 0.0)
                tl.store(derivatives + token, derivative, mask=token < vocabulary)


def cross_entropy(
    logits: Tensor, targets: Tensor, ignored: int, unit: float = 1.0, *, derive: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Losses of positions, and their derivatives.

    Args:
        logits: [N, V] in bfloat16, float16 or float32.
        targets: [N] int64, ``ignored`` or below V; one that is neither gets a loss of NaN.
        ignored: target of positions without one, whose loss and derivative are 0.
        unit: what derivatives are multiplied by.
        derive: whether they are asked for.

    Returns:
        [N] float32, and [N, V] in the dtype of the logits.
    """
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    losses = logits.new_empty(len(logits), dtype=torch.float32)
    derivatives = torch.empty_like(logits, memory_format=torch.contiguous_format) if derive else None
    if len(logits):
        with torch.cuda.device_of(logits):
            _cross_entropy[(len(logits),)](
                logits,
                targets.contiguous(),
                losses,
                losses if derivatives is None else derivatives,
                logits.shape[1],
                logits.stride(0),
                ignored,
                UNIT=unit,
                DERIVE=derive,
                BLOCK=min(_LARGEST_BLOCK, max(16, triton.next_power_of_2(logits.shape[1]))),
                num_warps=8,
            )
    return losses, derivatives


def compare(dtype: torch.dtype, device: torch.device, vocabulary: int, unit: float) -> tuple[float, float]:
    """How far the kernel is off on a few random positions, in units of rounding, and how far it may be."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(5, vocabulary, generator=generator) * 3).to(device, dtype)
    targets = torch.randint(vocabulary, (5,), generator=generator).to(device)
    targets[1] = -100
    losses, derivatives = cross_entropy(logits, targets, -100, unit)
    alone, _ = cross_entropy(logits, targets, -100, unit, derive=False)
    wide = logits.double().requires_grad_()
    with torch.enable_grad():
        expected = F.cross_entropy(wide, targets, reduction="none")
        (gradient,) = torch.autograd.grad(expected.sum(), wide)
    assert derivatives is not None
    errors = [(found - expected.detach()).abs().amax() / 1e-5 for found in (losses, alone)]
    errors.append((derivatives / unit - gradient).abs().amax() / max(torch.finfo(dtype).eps, 1e-6))
    return float(torch.stack(errors).amax()), 10.0
