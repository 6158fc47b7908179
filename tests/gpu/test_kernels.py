"""Triton's kernels on the device: they pass their trial, so that they are used."""

import pytest
import torch

from presence_ds.influence import loss, outer
from presence_ds.influence.kernels import trial
from tests.gpu.device import DEVICE, ON_GPU

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if not ON_GPU:
        pytest.skip("kernels are for GPUs; on a CPU tests/influence/kernels interprets them")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "cols"), [(1024, 1024), (2816, 1024), (32000, 1024), (1000, 24)])
def test_the_sketch(dtype: torch.dtype, rows: int, cols: int) -> None:
    """What it gives, with and without projections, at the widths of a model; and added to what there is."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE, dtype)

    factors = random(3, 300, rows), random(3, 300, cols)
    matrices = random(rows, 32) / 32**0.5, None if cols < 32 else random(cols, 32) / 32**0.5
    pairs = zip(factors, matrices, strict=True)
    left, right = (side.double() if matrix is None else side.double() @ matrix.double() for side, matrix in pairs)
    expected = left.mT @ right
    slab = torch.zeros(3, expected[0].numel() + 8, device=DEVICE)
    out = slab[:, 8:].view(expected.shape)
    for times in (1, 2):
        outer.sketch_outer(*factors, *matrices, out, add=times > 1)
        assert (out - times * expected).abs().max() < 1e-3 * expected.abs().max()
    assert not slab[:, :8].any()
    assert "sketch" not in trial.failed()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocabulary", [211, 32000, 128256])
def test_the_cross_entropy_is_taken(dtype: torch.dtype, vocabulary: int) -> None:
    """What it gives is in test_loss.py."""
    logits = torch.randn(2, 3, vocabulary).to(DEVICE, dtype)
    assert loss._has_kernel(logits)
    assert "cross_entropy" not in trial.failed()
