"""Sketches of the gradients of matrix products: by a kernel on a GPU, else by torch, which defines the numbers."""

import torch
from torch import Tensor

from presence_ds.capture import bmm_wide
from presence_ds.influence.kernels.trial import passes

WIDEST = 64  # columns of a side in the kernel, which keeps what is narrow in registers


def sketch_outer(
    rows: Tensor,
    cols: Tensor,
    row_matrix: Tensor | None,
    col_matrix: Tensor | None,
    out: Tensor | None = None,
    *,
    add: bool = False,
    kernels: bool = True,
) -> Tensor:
    """S_i = Σ_t (rows[i, t] P)ᵀ (cols[i, t] Q): [B, k, k] in float32 (float64 of float64).

    Args:
        rows: [B, T, R].
        cols: [B, T, C], same dtype as rows.
        row_matrix: P [R, k] in that dtype; None leaves the side as it is, k then being R.
        col_matrix: Q [C, k], as well.
        out: where the result goes, a view of any strides; None makes a tensor.
        add: add to ``out`` what is found.
        kernels: whether to use the kernel where it can be, which changes nothing but rounding.
    """
    if kernels and _has_kernel(rows, cols, row_matrix, col_matrix):
        from presence_ds.influence.kernels import sketch

        return sketch.sketch(rows, cols, row_matrix, col_matrix, out, add=add)
    left, right = project(rows, row_matrix).mT, project(cols, col_matrix)
    if out is not None and add:
        return out.add_(bmm_wide(left, right))
    return bmm_wide(left, right, out)


def project(x: Tensor, matrix: Tensor | None) -> Tensor:
    """[…, p] to […, k]; without ``matrix`` as it is."""
    return x if matrix is None else x @ matrix


def _has_kernel(rows: Tensor, cols: Tensor, row_matrix: Tensor | None, col_matrix: Tensor | None) -> bool:
    sides = [_widths(rows, row_matrix), _widths(cols, col_matrix)]
    if max(k for _, k in sides) > WIDEST:
        return False

    def compare(dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
        from presence_ds.influence.kernels import sketch

        return sketch.compare(dtype, device, *sides)

    return passes("sketch", rows, tuple(sides), compare)


def _widths(side: Tensor, matrix: Tensor | None) -> tuple[int, int]:
    """Of a trial: without projection, divisible by 16 if ``side`` is, which decides how it is read; and with it."""
    if matrix is None:
        return side.shape[-1], side.shape[-1]
    return 200 - 8 * (side.shape[-1] % 16 == 0), matrix.shape[-1]
