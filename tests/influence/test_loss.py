"""Per-sample losses and their gradient against autograd and the loss of transformers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers.loss.loss_utils import ForCausalLMLoss

from presence_ds.influence import causal_lm_losses
from presence_ds.influence import loss as loss_module


@settings(max_examples=30, deadline=None)
@given(
    batch_size=st.integers(1, 4),
    positions=st.integers(2, 9),
    vocabulary=st.integers(2, 40),
    ignored=st.floats(0, 1),
    chunk=st.sampled_from([1, 64, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_equals_autograd(
    batch_size: int, positions: int, vocabulary: int, ignored: float, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch_size, positions, vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocabulary, (batch_size, positions), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = -100
    default, loss_module.MAX_ELEMENTS = loss_module.MAX_ELEMENTS, chunk
    try:
        losses, gradient = causal_lm_losses(logits, labels)
    finally:
        loss_module.MAX_ELEMENTS = default

    leaf = logits.clone().requires_grad_()
    per_token = F.cross_entropy(leaf[:, :-1].mT, labels[:, 1:], ignore_index=-100, reduction="none")
    expected = per_token.sum(1) / (labels[:, 1:] != -100).sum(1).clamp(min=1)
    expected.sum().backward()
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)


def test_packed_batches_have_the_loss_of_transformers() -> None:
    logits, labels = torch.randn(3, 8, 20), torch.randint(20, (3, 8))
    losses, _ = causal_lm_losses(logits, labels)
    assert losses.mean().item() == pytest.approx(ForCausalLMLoss(logits, labels, 20).item(), rel=1e-6)


def test_one_bad_sample_leaves_the_others_alone() -> None:
    logits, labels = torch.randn(3, 8, 20), torch.randint(20, (3, 8))
    expected, expected_gradient = causal_lm_losses(logits, labels)
    logits[1, 3] = float("nan")
    losses, gradient = causal_lm_losses(logits, labels)
    assert losses[1].isnan()
    assert torch.equal(losses[[0, 2]], expected[[0, 2]])
    assert torch.equal(gradient[[0, 2]], expected_gradient[[0, 2]])
