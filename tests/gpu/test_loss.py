"""The chunked loss on the device, in every type and with every normalizer, against transformers' in float64."""

import pytest
import torch

from presence_ds.influence import Normalizer, SampleLoss
from presence_ds.influence import loss as loss_module
from tests.gpu.device import DEVICE, ON_GPU
from tests.influence.test_loss import plain

VOCABULARY = 211
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}  # of the largest derivative


@pytest.mark.parametrize("chunk", [VOCABULARY * 5, 1 << 25])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("normalizer", ["token_mean", "sum", 17.0])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("kernels", [False, True] if ON_GPU else [False])
def test_losses_and_their_gradient(
    monkeypatch: pytest.MonkeyPatch,
    kernels: bool,
    dtype: torch.dtype,
    normalizer: Normalizer,
    shifted: bool,
    chunk: int,
) -> None:
    """In many chunks and in one; with samples of few targets and of none, and something not finite where none is."""
    for limit in ("MAX_ELEMENTS", "MAX_ELEMENTS_OF_GPU"):
        monkeypatch.setattr(loss_module, limit, chunk)
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(4, 13, VOCABULARY, generator=generator)).to(DEVICE, dtype)
    labels = torch.randint(VOCABULARY, (4, 13), generator=generator)
    labels[1, 3:], labels[2] = -100, -100
    labels = labels.to(DEVICE)
    weights = torch.rand(4, generator=generator).to(DEVICE)
    leaf, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    losses, expected = SampleLoss(normalizer, shifted, kernels)(leaf, labels), plain(exact, labels, normalizer, shifted)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    (weights * losses).sum().backward()
    (weights * expected).sum().backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    assert leaf.grad.dtype == dtype
    assert (leaf.grad.double() - exact.grad).abs().max() < LIMITS[dtype] * exact.grad.abs().max()
    assert not leaf.grad[2].any()


def test_what_is_ignored_may_hold_anything() -> None:
    logits = torch.randn(2, 5, 7).to(DEVICE)
    labels = torch.randint(7, (2, 5)).to(DEVICE)
    labels[0, 3] = -100
    logits[0, 2] = torch.nan
    leaf = logits.requires_grad_()
    losses = SampleLoss()(leaf, labels)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
