"""The kernel of sketches against float64, by Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from presence_ds.influence.outer import sketch_outer
from tests.influence.kernels.interpreter import interpreted

pytest.importorskip("triton", reason="triton is not installed")

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Factors = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def factors(
    samples: int, positions: int, wide: tuple[int, int], k: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Factors:
    """Rows, cols, P and Q; a side no wider than ``k`` has no projection."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    rows, cols = (random(samples, positions, width) for width in wide)
    row_matrix, col_matrix = (random(width, k) if width > k else None for width in wide)
    return rows, cols, row_matrix, col_matrix


def by_kernel(given: Factors, block: int | None = None) -> Tensor:
    from presence_ds.influence.kernels.sketch import sketch

    return sketch(*given, block=block)


def by_float64(given: Factors) -> Tensor:
    rows, cols, row_matrix, col_matrix = (None if part is None else part.double() for part in given)
    assert rows is not None
    assert cols is not None
    left, right = (
        side if matrix is None else side @ matrix for side, matrix in ((rows, row_matrix), (cols, col_matrix))
    )
    return left.mT @ right


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Float32 throughout, whatever the factors are: δP is not rounded in between."""
    assert found.dtype == torch.float32
    scale = expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("samples", "positions", "wide", "k"),
    [
        (2, 70, (200, 136), 32),
        (3, 33, (67, 129), 5),  # odd, and k no power of two
        (1, 1, (48, 80), 16),
        (2, 17, (12, 150), 12),  # rows as they are
        (2, 64, (150, 9), 20),  # cols as they are
        (2, 19, (7, 1), 8),  # both
        (1, 130, (65, 66), 64),
        (0, 5, (40, 40), 8),
        (3, 0, (40, 40), 8),
    ],
)
@interpreted
def test_equals_float64(samples: int, positions: int, wide: tuple[int, int], k: int, dtype: torch.dtype) -> None:
    given = factors(samples, positions, wide, k, dtype)
    assert_close(by_kernel(given), by_float64(given))


@pytest.mark.parametrize("block", [16, 32, 64])
@interpreted
def test_equals_float64_in_blocks_of_any_size(block: int) -> None:
    given = factors(2, 75, (90, 40), 24, torch.bfloat16)
    assert_close(by_kernel(given, block), by_float64(given))


@interpreted
def test_gives_the_same_again_to_the_bit() -> None:
    given = factors(2, 100, (70, 70), 16, torch.bfloat16)
    assert torch.equal(by_kernel(given), by_kernel(given))


@interpreted
def test_takes_any_strides() -> None:
    rows, cols, row_matrix, col_matrix = factors(3, 37, (50, 70), 8)
    expected = by_float64((rows, cols, row_matrix, col_matrix))
    padded = torch.full((3, 40, 59), torch.nan)
    padded[:, 1:38, 5:55] = rows
    positions_first = cols.transpose(0, 1).contiguous().transpose(0, 1)
    columns_first = cols.mT.contiguous().mT  # no stride of 1 in the last dimension
    assert row_matrix is not None
    turned = row_matrix.mT.contiguous().mT
    for left in (rows, padded[:, 1:38, 5:55]):
        for right in (cols, positions_first, columns_first):
            assert_close(by_kernel((left, right, turned, col_matrix)), expected)
    assert col_matrix is not None
    beside = torch.cat([torch.full((3, 37, 5), torch.nan), cols @ col_matrix, torch.full((3, 37, 6), torch.nan)], dim=2)
    assert_close(by_kernel((rows, beside[..., 5:13], row_matrix, None)), expected)  # projected with others
    same = rows[:1].expand(3, -1, -1)
    assert_close(by_kernel((same, cols, row_matrix, col_matrix)), by_float64((same, cols, row_matrix, col_matrix)))


@interpreted
def test_what_is_not_finite_stays_in_its_sample() -> None:
    given = factors(4, 40, (50, 70), 10)
    expected = by_kernel(given)
    for value in (torch.nan, torch.inf, -torch.inf):
        for side in (0, 1):
            changed = list(given)
            changed[side] = given[side].clone()  # type: ignore[union-attr]
            changed[side][2, 39, 3] = value  # type: ignore[index]
            found = by_kernel(tuple(changed))  # type: ignore[arg-type]
            assert torch.equal(found[[0, 1, 3]], expected[[0, 1, 3]])
            assert not found[2].isfinite().any()


@interpreted
def test_padding_adds_nothing() -> None:
    rows, cols, *matrices = factors(2, 40, (50, 70), 10)
    rows[0, 25:] = 0.0
    short = by_kernel((rows[:1, :25], cols[:1, :25], *matrices))  # type: ignore[arg-type]
    assert_close(by_kernel((rows, cols, *matrices))[:1], short.double())  # type: ignore[arg-type]


@pytest.mark.parametrize("kernels", [True, False])
@interpreted
def test_goes_into_a_slab(kernels: bool) -> None:
    """A view [B, k, k] of a row of numbers for every sample: nothing is written beside it; a second use is added."""
    first, second = (factors(3, 21, (40, 50), 6, seed=seed) for seed in (0, 1))
    slab = torch.full((3, 100), 7.0)
    place = slab[:, 11:47].view(3, 6, 6)
    assert sketch_outer(*first, place, kernels=kernels) is place  # type: ignore[arg-type]
    assert_close(place, by_float64(first))
    sketch_outer(*second, place, add=True, kernels=kernels)
    assert_close(place, by_float64(first) + by_float64(second))
    assert (slab[:, :11] == 7).all()
    assert (slab[:, 47:] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@interpreted
def test_differs_from_torch_by_rounding_alone(dtype: torch.dtype) -> None:
    given = factors(2, 60, (80, 90), 16, dtype)
    kernel, torch_path = sketch_outer(*given), sketch_outer(*given, kernels=False)
    assert torch.equal(kernel, by_kernel(given))
    error = (kernel - torch_path).norm() / torch_path.norm()
    assert error < 3 * torch.finfo(dtype).eps
    assert not torch.equal(kernel, torch_path)


@interpreted
def test_is_left_alone_where_it_does_not_fit() -> None:
    wide = factors(1, 20, (90, 90), 80)
    double = tuple(part.double() for part in factors(1, 20, (30, 40), 8) if part is not None)
    for given in (wide, double):
        assert torch.equal(sketch_outer(*given), sketch_outer(*given, kernels=False))  # type: ignore[arg-type]
