"""The kernel of the loss against float64, by Triton's interpreter, and the tests of the torch path by the kernel."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from presence_ds.influence import SampleLoss
from presence_ds.influence.kernels import trial
from tests.influence import test_loss
from tests.influence.kernels.interpreter import interpreted

pytest.importorskip("triton", reason="triton is not installed")

UNITS = {torch.float32: 1.0, torch.float16: 2.0**14, torch.bfloat16: 1.0}


def by_kernel(logits: Tensor, targets: Tensor, *, derive: bool = True) -> tuple[Tensor, Tensor | None]:
    from presence_ds.influence.kernels.cross_entropy import cross_entropy

    return cross_entropy(logits, targets, -100, UNITS[logits.dtype], derive=derive)


def by_float64(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    wide = logits.detach().double().requires_grad_()
    losses = F.cross_entropy(wide, targets, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), wide)
    return losses.detach(), gradient


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize(("positions", "vocabulary"), [(7, 97), (1, 2), (4, 5001), (3, 4096), (2, 256_000), (0, 11)])
@interpreted
def test_equals_float64(positions: int, vocabulary: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(positions, vocabulary, generator=generator) * 4).to(dtype)
    targets = torch.randint(vocabulary, (positions,), generator=generator)
    targets[1::3] = -100
    losses, derivatives = by_kernel(logits, targets)
    assert losses.dtype == torch.float32
    assert derivatives is not None
    assert derivatives.dtype == dtype
    if not positions:
        return
    expected, gradient = by_float64(logits, targets)
    torch.testing.assert_close(losses.double(), expected, rtol=2e-6, atol=2e-6)
    eps = max(torch.finfo(dtype).eps, 2e-6)
    torch.testing.assert_close(derivatives.double() / UNITS[dtype], gradient, rtol=eps, atol=eps * 1e-3)
    assert (derivatives[1::3] == 0).all()
    alone, none = by_kernel(logits, targets, derive=False)
    assert torch.equal(alone, losses)
    assert none is None
    assert torch.equal(by_kernel(logits, targets)[0], losses)


@interpreted
def test_takes_any_strides() -> None:
    logits, targets = torch.randn(5, 40), torch.randint(40, (5,))
    padded = torch.full((5, 61), torch.nan)
    padded[:, 7:47] = logits
    expected = by_kernel(logits, targets)
    for one in (padded[:, 7:47], logits.mT.contiguous().mT):
        found = by_kernel(one, targets)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [3, 4500])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@interpreted
def test_what_is_not_finite_is_what_torch_makes_of_it(value: float, place: int) -> None:
    """In the first block of a position and in the last; a whole first block, and all of a position, ruled out."""
    logits = torch.randn(4, 5000)
    logits[1, place] = value
    logits[2, :4096] = value
    logits[3] = value
    targets = torch.tensor([7, 4700, 4800, 9])
    losses, derivatives = by_kernel(logits, targets)
    expected, gradient = by_float64(logits, targets)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert derivatives is not None
    torch.testing.assert_close(derivatives.double(), gradient, rtol=1e-5, atol=1e-8, equal_nan=True)
    assert losses[0].isfinite()


@interpreted
def test_a_token_that_is_ruled_out_and_a_target_that_is_none() -> None:
    logits = torch.randn(3, 20)
    logits[0, 4] = -torch.inf
    losses, _ = by_kernel(logits, torch.tensor([4, 20, 5]))
    assert losses[0] == torch.inf
    assert losses[1].isnan()
    assert losses[2].isfinite()


@pytest.mark.parametrize(
    "name",
    [
        "test_one_bad_sample_leaves_the_others_alone",
        "test_what_is_ignored_may_hold_anything",
        "test_narrow_logits_get_a_gradient_of_their_own_type",
        "test_small_probabilities_survive_float16",
        "test_large_logits_and_tokens_that_are_ruled_out",
        "test_a_graph_that_is_kept_gives_the_same_gradient_again",
    ],
)
@interpreted
def test_does_what_the_torch_path_is_tested_for(name: str) -> None:
    getattr(test_loss, name)()


@pytest.mark.parametrize("dtype", UNITS)
@interpreted
def test_losses_and_gradients_of_samples_are_those_of_torch(dtype: torch.dtype) -> None:
    logits, labels = (torch.randn(3, 9, 50) * 3).to(dtype), torch.randint(50, (3, 9))
    labels[0, 4:] = -100
    weights = torch.tensor([0.5, 0.0, 2.0])
    found = []
    for kernels in (True, False):
        leaf = logits.clone().requires_grad_()
        losses = SampleLoss(kernels=kernels)(leaf, labels)  # type: ignore[arg-type]
        (losses * weights).sum().backward()
        assert leaf.grad is not None
        found.append((losses.detach(), leaf.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
    assert ("cross_entropy", dtype) in {key[:2] for key in trial._passed}
