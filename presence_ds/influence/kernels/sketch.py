"""One kernel for the sketch of a linear layer: S_i = Σ_t (δ_t P)ᵀ (a_t Q) from one reading of δ and a.

torch needs five launches for it: two products that are too narrow to fill a card, two copies in float32, and a batched
product. Here a program takes a block of positions of one sample, brings both factors down to the k columns of their
projections and multiplies the two. Nothing that is narrow leaves the chip but k × k numbers a program, which
`torch.sum` adds up: in the same order every time, as atomic additions would not.

δP and aQ stay in float32, where the torch path rounds them to the dtype of the factors: the kernel gives the same but
for rounding, and is a little closer.

P and Q are loaded, not drawn anew from a counter-based generator. All programs of a launch read the same ones, which
stay in the cache: from memory they are k / (B T) of the factors' traffic, less than a hundredth. A normal number costs
some thirty instructions and would be drawn again by every program, for 16 to 64 multiplications; and it would have to
be the same on a CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 256  # at least, where there are positions enough: about two for each multiprocessor of a large GPU
_POSITIONS = (64, 32, 16)  # of a block; the fewer they are the more often the projections are read


@triton.jit
def _narrow(
    x: tl.tensor,
    stride: tl.tensor,
    positions: tl.tensor,
    inside: tl.tensor,
    width: tl.tensor,
    matrix: tl.tensor,
    matrix_stride: tl.tensor,
    k: tl.tensor,
    PROJECTED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK: tl.constexpr,
    K: tl.constexpr,
) -> tl.tensor:
    """Rows ``positions`` of ``x`` [·, width] times ``matrix`` [width, k], or as they are: [BLOCK_T, K] float32."""
    columns = tl.arange(0, K)
    rows = x + positions[:, None] * stride
    if PROJECTED:
        narrow = tl.zeros((BLOCK_T, K), tl.float32)
        for start in range(0, width, BLOCK):
            wide = start + tl.arange(0, BLOCK)
            part = tl.load(rows + wide[None, :], mask=inside[:, None] & (wide < width)[None, :], other=0.0)
            entries = matrix + wide[:, None] * matrix_stride + columns[None, :]
            projection = tl.load(entries, mask=(wide < width)[:, None] & (columns < k)[None, :], other=0.0)
            narrow = tl.dot(part, projection, narrow, input_precision="ieee")
    else:
        narrow = tl.load(rows + columns[None, :], mask=inside[:, None] & (columns < k)[None, :], other=0.0)
        narrow = narrow.to(tl.float32)
    return narrow


@triton.jit(do_not_specialize=["length"])
def _sketch(
    rows: tl.tensor,
    cols: tl.tensor,
    row_matrix: tl.tensor,
    col_matrix: tl.tensor,
    partial: tl.tensor,  # [samples, chunks, row_k, col_k]
    length: tl.tensor,
    row_width: tl.tensor,
    col_width: tl.tensor,
    row_k: tl.tensor,
    col_k: tl.tensor,
    row_sample: tl.tensor,  # strides
    row_position: tl.tensor,
    col_sample: tl.tensor,
    col_position: tl.tensor,
    row_entry: tl.tensor,
    col_entry: tl.tensor,
    ROW_PROJECTED: tl.constexpr,
    COL_PROJECTED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK: tl.constexpr,
    ROW_K: tl.constexpr,
    COL_K: tl.constexpr,
) -> None:
    chunks = tl.cdiv(length, BLOCK_T)
    program = tl.program_id(0)
    sample = (program // chunks).to(tl.int64)  # a head's output gradient has more than 2^31 elements
    positions = ((program % chunks) * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)
    inside = positions < length
    left = _narrow(
        rows + sample * row_sample, row_position, positions, inside, row_width, row_matrix, row_entry, row_k,
        ROW_PROJECTED, BLOCK_T, BLOCK, ROW_K,
    )  # fmt: skip
    right = _narrow(
        cols + sample * col_sample, col_position, positions, inside, col_width, col_matrix, col_entry, col_k,
        COL_PROJECTED, BLOCK_T, BLOCK, COL_K,
    )  # fmt: skip
    found = tl.dot(tl.trans(left), right, input_precision="ieee")
    i, j = tl.arange(0, ROW_K), tl.arange(0, COL_K)
    place = program.to(tl.int64) * row_k * col_k + i[:, None] * col_k + j[None, :]
    tl.store(partial + place, found, mask=(i < row_k)[:, None] & (j < col_k)[None, :])


def sketch(
    rows: Tensor,
    cols: Tensor,
    row_matrix: Tensor | None,
    col_matrix: Tensor | None,
    out: Tensor | None = None,
    *,
    add: bool = False,
    block: int | None = None,
) -> Tensor:
    """`presence_ds.influence.outer.sketch_outer` by the kernel: [B, k, k] float32.

    Args:
        rows, cols, row_matrix, col_matrix, out, add: as there; factors and projections in bfloat16, float16 or float32,
            and no side wider than `presence_ds.influence.outer.WIDEST` after its projection.
        block: positions of a program, a power of two of at least 16; None: as many as leave enough programs.
    """
    rows, cols = (side if side.stride(-1) == 1 else side.contiguous() for side in (rows, cols))
    samples, length = rows.shape[:2]
    row_k, col_k = (
        (side if matrix is None else matrix).shape[-1] for side, matrix in ((rows, row_matrix), (cols, col_matrix))
    )
    if block is None:
        block = next((size for size in _POSITIONS if samples * triton.cdiv(length, size) >= _PROGRAMS), _POSITIONS[-1])
    chunks = triton.cdiv(length, block)
    partial = rows.new_empty(samples, chunks, row_k, col_k, dtype=torch.float32)
    if partial.numel():
        with torch.cuda.device_of(rows):  # where Triton would launch on another one
            _sketch[(samples * chunks,)](
                rows, cols, _contiguous(row_matrix, rows), _contiguous(col_matrix, cols), partial,
                length, rows.shape[2], cols.shape[2], row_k, col_k,
                rows.stride(0), rows.stride(1), cols.stride(0), cols.stride(1), row_k, col_k,
                ROW_PROJECTED=row_matrix is not None, COL_PROJECTED=col_matrix is not None,
                BLOCK_T=block, BLOCK=128 // rows.element_size(), ROW_K=_padded(row_k), COL_K=_padded(col_k),
            )  # fmt: skip
    if out is not None and add:
        return out.add_(partial.sum(1))
    return torch.sum(partial, 1, out=out)


def compare(dtype: torch.dtype, device: torch.device, *sides: tuple[int, int]) -> tuple[float, float]:
    """How far the kernel is off on small random input, relative to the largest number, and how far it may be.

    ``sides`` are the widths of rows and of cols, without and with a projection; the same if there is none.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    factors = [random(2, 70, width) for width, _ in sides]
    matrices = [random(width, k) if k < width else None for width, k in sides]
    wide = [
        factor.double() if matrix is None else factor.double() @ matrix.double()
        for factor, matrix in zip(factors, matrices, strict=True)
    ]
    expected = wide[0].mT @ wide[1]
    errors = [(sketch(*factors, *matrices, block=block) - expected).abs().amax() for block in _POSITIONS]
    return float(torch.stack(errors).amax() / expected.abs().amax()), 1e-4


def _contiguous(matrix: Tensor | None, instead: Tensor) -> Tensor:
    return instead if matrix is None else matrix.contiguous()


def _padded(k: int) -> int:
    """A size that `tl.dot` takes."""
    return max(16, triton.next_power_of_2(k))
