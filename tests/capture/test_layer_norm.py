"""LayerNorm's rule in narrow dtypes: as exact as they are, and nothing as large as the activations in a wider one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from presence_ds.capture import Capture, Instrumentation

BATCH, POSITIONS, WIDTH = 6, 300, 64


class Largest(TorchDispatchMode):
    """The most numbers that a float32 tensor has that is made inside."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.dtype == torch.float32]
        self.numbers = max([self.numbers, *(leaf.numel() for leaf in found)])
        return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_of_narrow_activations_no_wide_copy_is_made(dtype: torch.dtype) -> None:
    """Of δ x̂ both factors and the product are rounded, each by ε/2 at most and to either side."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(WIDTH).to(dtype)
    x = (3.0 + torch.randn(BATCH, POSITIONS, WIDTH)).to(dtype).requires_grad_()
    delta = (0.1 + torch.randn(BATCH, POSITIONS, WIDTH)).to(dtype)
    instrumentation = Instrumentation(norm)
    capture = Capture(BATCH, instrumentation.names, x.device)
    with instrumentation.recording(capture):
        output = norm(x)
    with Largest() as largest:
        torch.autograd.grad(output, x, delta)
    assert largest.numbers < x.numel()
    ((term,), _) = capture.terms.values()

    normalized = nn.functional.layer_norm(x.detach().double(), (WIDTH,), eps=norm.eps)
    products = normalized * delta.double()
    expected, error = products.sum(1), term.grads.double() - products.sum(1)
    assert term.grads.dtype == torch.float32
    rounding = torch.finfo(dtype).eps / 2
    assert error.square().mean() < (rounding * products.square().sum(1).sqrt()).square().mean()
    assert abs((error * expected).sum() / expected.square().sum()) < rounding / 10  # no common factor
