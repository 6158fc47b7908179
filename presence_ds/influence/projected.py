"""Unbiased estimates of squared per-sample gradient norms from two-sided Gaussian projections.

For a parameter with per-sample gradient G (R × C): S = P_rowᵀ G P_col with P_row (R × k) and P_col (C × k), entries
N(0, 1/k), so that E‖S‖² = ‖G‖². S is linear in G, so the terms of a tied or re-used parameter are projected with the
same pair and added before the norm. The relative variance is (1 + 2/k)² − 1 for a rank-one G and smaller for higher
rank; it averages out over parameters, whose projections are independent.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from presence_ds.capture import DenseTerm, LookupTerm, OuterTerm, Term, full_shape, widen


class Projection:
    """The pair (P_row, P_col) of one parameter.

    Seeded by the parameter's *name*, so it is the same on every rank, after every resume and in every order of
    creation.
    A side no wider than k is left as it is: that costs nothing and adds no variance.
    """

    def __init__(self, parameter: Tensor, name: str, k: int, seed: int, device: torch.device | str = "cpu") -> None:
        """``parameter`` has two dimensions or more; those after the first count as columns.

        The matrices are drawn on the CPU, which gives the same numbers whatever ``device`` they are used on, and take
        the parameter's dtype.
        """
        shape = full_shape(parameter)
        like = torch.empty(0, device=device, dtype=parameter.dtype)
        self._row = _gaussian(shape[0], k, f"{seed}:{name}:row", like)
        self._col = _gaussian(shape[1:].numel(), k, f"{seed}:{name}:col", like)

    def sketch(self, terms: Sequence[Term]) -> Tensor:
        """Σ over ``terms`` of P_rowᵀ G_i P_col: [B, ≤k, ≤k] in float32 (float64 if the terms are)."""
        return sum((self._sketch(term) for term in terms[1:]), start=self._sketch(terms[0]))

    def _sketch(self, term: Term) -> Tensor:
        match term:
            case OuterTerm():
                rows, cols = _project(term.rows, self._row), _project(term.cols, self._col)
            case LookupTerm():
                if self._row is None:
                    rows = nn.functional.one_hot(term.ids, term.num_rows).to(term.cols.dtype)
                else:
                    rows = self._row[term.ids]
                cols = _project(term.cols, self._col)
            case DenseTerm():
                rows = _project(term.grads.flatten(2).mT, self._row).mT
                return widen(_project(rows, self._col))
        return widen(rows).mT @ widen(cols)


def squared_norms(projection: Projection | None, terms: Sequence[Term]) -> Tensor:
    """Estimate of ‖G_i‖² of one parameter, [B] float32; ``projection`` is None for vectors, whose norm is exact."""
    if projection is None:
        grads = sum((widen(term.grads) for term in terms if isinstance(term, DenseTerm)), start=torch.zeros(()))
        return grads.flatten(1).square().sum(1)
    return projection.sketch(terms).flatten(1).square().sum(1)


def _gaussian(size: int, k: int, key: str, like: Tensor) -> Tensor | None:
    if size <= k:
        return None
    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    matrix = torch.randn(size, k, generator=generator, dtype=torch.float32) / k**0.5
    return matrix.to(device=like.device, dtype=like.dtype)


def _project(x: Tensor, matrix: Tensor | None) -> Tensor:
    return x if matrix is None else x @ matrix
