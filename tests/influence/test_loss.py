"""Per-sample losses and their gradient against autograd and the losses of transformers."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.loss.loss_utils import ForCausalLMLoss

from presence_ds.influence import Normalizer, SampleLoss
from presence_ds.influence import loss as loss_module


def plain(logits: Tensor, labels: Tensor, normalizer: Normalizer, shifted: bool) -> Tensor:
    if not shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    total = F.cross_entropy(logits.mT, labels, ignore_index=-100, reduction="none").sum(1)
    if normalizer == "token_mean":
        return total / (labels != -100).sum(1).clamp(min=1)
    return total if normalizer == "sum" else total / normalizer


@given(
    batch_size=st.integers(1, 4),
    positions=st.integers(2, 9),
    vocabulary=st.integers(2, 40),
    ignored=st.floats(0, 1),
    normalizer=st.sampled_from(["token_mean", "sum", 17.0]),
    shifted=st.booleans(),
    chunk=st.sampled_from([1, 64, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_equals_autograd(
    batch_size: int,
    positions: int,
    vocabulary: int,
    ignored: float,
    normalizer: Normalizer,
    shifted: bool,
    chunk: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch_size, positions, vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocabulary, (batch_size, positions), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = -100
    weights = torch.randn(batch_size, generator=generator, dtype=torch.float64)
    leaf, plain_leaf = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    default, loss_module.MAX_ELEMENTS = loss_module.MAX_ELEMENTS, chunk
    try:
        losses = SampleLoss(normalizer, shifted)(leaf, labels)
        (weights * losses).sum().backward()
    finally:
        loss_module.MAX_ELEMENTS = default
    expected = plain(plain_leaf, labels, normalizer, shifted)
    (weights * expected).sum().backward()
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(leaf.grad, plain_leaf.grad)


@pytest.mark.parametrize("shifted", [False, True])
def test_packed_batches_have_the_loss_of_transformers(shifted: bool) -> None:
    logits, labels = torch.randn(3, 8, 20), torch.randint(20, (3, 8))
    expected = F.cross_entropy(logits.mT, labels) if shifted else ForCausalLMLoss(logits, labels, 20)
    assert SampleLoss(shifted=shifted)(logits, labels).mean().item() == pytest.approx(expected.item(), rel=1e-6)


def test_one_bad_sample_leaves_the_others_alone() -> None:
    logits, labels = torch.randn(3, 8, 20), torch.randint(20, (3, 8))
    results = []
    for value in (0.0, float("nan")):
        logits[1, 3] = value
        leaf = logits.clone().requires_grad_()
        losses = SampleLoss()(leaf, labels)
        losses.sum().backward()
        results.append((losses.detach(), leaf.grad))
    (expected, expected_gradient), (losses, gradient) = results
    assert losses[1].isnan()
    assert torch.equal(losses[[0, 2]], expected[[0, 2]])
    assert gradient is not None
    assert torch.equal(gradient[[0, 2]], expected_gradient[[0, 2]])


def test_what_is_ignored_may_hold_anything() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    labels[0, 3] = -100
    logits[0, 2] = float("inf")  # predicts the ignored position
    leaf = logits.requires_grad_()
    losses = SampleLoss()(leaf, labels)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


def test_narrow_logits_get_a_gradient_of_their_own_type() -> None:
    logits = torch.randn(2, 6, 11)
    labels = torch.randint(11, (2, 6))
    wide, narrow = logits.bfloat16().float().requires_grad_(), logits.bfloat16().requires_grad_()
    losses = [SampleLoss()(leaf, labels) for leaf in (wide, narrow)]
    for one in losses:
        one.sum().backward()
    assert losses[1].dtype == torch.float32
    assert torch.equal(losses[0], losses[1])
    assert narrow.grad is not None
    assert narrow.grad.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.grad.float(), wide.grad, rtol=1e-2, atol=1e-6)


def test_small_probabilities_survive_float16() -> None:
    """The loss scale comes with the backward; float16 alone would hold no probability below 6e-8 till then."""
    logits = torch.zeros(1, 3, 5)
    logits[..., 1] = -20.0  # a probability of 5e-10
    labels = torch.tensor([[2, 3, 4]])
    narrow, wide = logits.half().requires_grad_(), logits.double().requires_grad_()
    for leaf in (narrow, wide):
        (SampleLoss()(leaf, labels) * 2.0**16).sum().backward()
    assert narrow.grad is not None
    assert wide.grad is not None
    assert wide.grad[0, 0, 1] > 1e-5
    torch.testing.assert_close(narrow.grad.double(), wide.grad, rtol=1e-2, atol=0.0)


def test_large_logits_and_tokens_that_are_ruled_out() -> None:
    logits = torch.randn(2, 6, 9) * 1e4
    logits[..., 4] = float("-inf")
    labels = torch.randint(4, (2, 6))
    leaf, plain_leaf = logits.clone().requires_grad_(), logits.double().requires_grad_()
    losses, expected = SampleLoss()(leaf, labels), plain(plain_leaf, labels, "token_mean", False)
    losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-6)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.double(), plain_leaf.grad, rtol=1e-5, atol=1e-7)


def test_a_graph_that_is_kept_gives_the_same_gradient_again() -> None:
    leaf = torch.randn(2, 6, 11).requires_grad_()
    total = SampleLoss()(leaf, torch.randint(11, (2, 6))).sum()
    first, second = (torch.autograd.grad(total, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


class _Sizes(TorchDispatchMode):
    """Notes the largest float32 tensor that is made inside."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value.dtype == torch.float32:
                self.largest = max(self.largest, value.numel())
        return result


def test_no_float32_copy_of_the_logits_is_made() -> None:
    """A vocabulary of 250k in bf16: nothing wider than a chunk, forward and backward."""
    logits = torch.randn(2, 6, 250_000).bfloat16().requires_grad_()
    labels = torch.randint(250_000, (2, 6))
    with _Sizes() as sizes:
        SampleLoss()(logits, labels).sum().backward()
    assert logits.grad is not None
    assert 250_000 <= sizes.largest <= loss_module.MAX_ELEMENTS
