"""Unbiased estimates of squared per-sample gradient norms from two-sided Gaussian projections.

For a parameter with per-sample gradient G (R × C): S = P_rowᵀ G P_col with P_row (R × k) and P_col (C × k), entries
N(0, 1/k), so that E‖S‖² = ‖G‖². S is linear in G, so the terms of a tied or re-used parameter are projected with the
same pair and added before the norm. The relative variance is (1 + 2/k)² − 1 for a rank-one G and smaller for higher
rank; it averages out over parameters, whose projections are independent.
"""

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from presence_ds.capture import (
    DenseTerm,
    LookupTerm,
    OuterTerm,
    Places,
    Term,
    bmm_wide,
    full_shape,
    sum_by_id_apart,
    widen,
)
from presence_ds.influence.outer import project, sketch_outer


class Projection:
    """The pair (P_row, P_col) of one parameter.

    Seeded by the parameter's *name*, so it is the same on every rank, after every resume and in every order of
    creation. A side no wider than k is left as it is: that costs nothing and adds no variance. So are vectors.

    Attributes:
        shape: of one sample's sketch.
        cols: P_col, [C, k] in the parameter's dtype; None where columns are left as they are.
    """

    def __init__(
        self,
        parameter: Tensor,
        name: str,
        k: int | None,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        kernels: bool = True,
    ) -> None:
        """Dimensions of ``parameter`` after the first count as columns; without ``k`` nothing is projected.

        The matrices are drawn on the CPU, which gives the same numbers whatever ``device`` they are used on, and take
        the parameter's dtype.
        """
        shape = full_shape(parameter)
        self._row = self.cols = None
        self._kernels = kernels
        rows, cols = shape[0] if shape else 1, shape[1:].numel()
        if k is not None and len(shape) > 1:
            like = torch.empty(0, device=device, dtype=parameter.dtype)
            self._row = _gaussian(rows, k, f"{seed}:{name}:row", like)
            self.cols = _gaussian(cols, k, f"{seed}:{name}:col", like)
        sides = rows if self._row is None else self._row.shape[1], cols if self.cols is None else self.cols.shape[1]
        self.shape = sides if len(shape) > 1 else (rows,)

    @property
    def size(self) -> int:
        """Number of elements of one sample's sketch."""
        return math.prod(self.shape)

    def sketch(
        self, term: Term, out: Tensor | None = None, *, add: bool = False, narrow_cols: Tensor | None = None
    ) -> Tensor:
        """P_rowᵀ G_i P_col of what ``term`` adds to G_i: [B, *shape] in float32 (float64 if the term is).

        By document it is [P, *shape]: positions are dealt out once they are narrow. Sketches are linear in the term:
        those of one parameter's terms add up.

        Args:
            out: what the sketches are written to, or with ``add`` added to; of any strides.
            narrow_cols: [B, T, ≤k], the columns of an outer term times P_col, if they are known.
        """
        if isinstance(term, OuterTerm):
            cols, matrix = (term.cols, self.cols) if narrow_cols is None else (narrow_cols, None)
            if term.places is None:
                return sketch_outer(term.rows, cols, self._row, matrix, out, add=add, kernels=self._kernels)
            found = _outer(project(term.rows, self._row), project(cols, matrix), term.places)
        else:
            found = self._sketch(term)
        if out is None:
            return found
        return out.add_(found) if add else out.copy_(found)

    def _sketch(self, term: LookupTerm | DenseTerm) -> Tensor:
        match term:
            case LookupTerm():
                cols = project(term.cols, self.cols)
                if self._row is not None:
                    return _outer(self._row[term.ids], cols, term.places)
                cols = widen(cols)
                if term.places is None:
                    return sum_by_id_apart(term.ids, cols, term.num_rows)
                return term.places.lookup(term.ids, cols, term.num_rows)
            case DenseTerm():
                if term.grads.dim() <= 2:
                    return widen(term.grads).view(len(term.grads), -1)
                rows = project(term.grads.flatten(2).mT, self._row).mT
                return widen(project(rows, self.cols))


class JointProjection:
    """One vector of width m per sample from the sketches of all parameters, with inner products kept on average.

    A count sketch: every element of every sketch goes, with a random sign, to a random one of m places. So E⟨f_i, f_j⟩
    = Σ_k ⟨S_ik, S_jk⟩ ≈ g_i · g_j, at a relative error of about 1/√m of ‖g_i‖ ‖g_j‖. It is what ranks exchange where
    gradients of samples on different ranks are compared.

    The places are as full as each other: a random order of each sketch's elements is dealt out to them in turn. So they
    are the columns of a table, whose rows are added in pairs: an order of additions that is the same in every run and
    on every device, to the bit, where scattered additions on a GPU come in any.
    """

    def __init__(self, sizes: Mapping[str, int], width: int, seed: int, device: torch.device | str = "cpu") -> None:
        """``sizes`` are those of the sketches by parameter name, in the order in which they will be given."""
        self.width = width
        order, signs, start = [], [], 0
        for name, size in sizes.items():
            generator = _generator(f"{seed}:{name}:joint")
            order.append(torch.randperm(size, generator=generator) + start)
            signs.append(torch.randint(2, (size,), generator=generator, dtype=torch.float32) * 2 - 1)
            start += size
        vacant = -start % width  # of the table's last row: any element stands there, times 0
        self._order = torch.cat([*order, torch.zeros(vacant, dtype=torch.int64)]).to(device)
        self._signs = torch.cat([*signs, torch.zeros(vacant)]).to(device)

    def __call__(self, sketches: Tensor) -> Tensor:
        """``sketches`` [B, sum of sizes] to [B, m] float32."""
        table = sketches[:, self._order].mul_(self._signs.to(sketches.dtype)).view(len(sketches), -1, self.width)
        while (rows := table.shape[1]) > 1:
            kept = (rows + 1) // 2
            table[:, : rows - kept] += table[:, kept:]
            table = table[:, :kept]
        return table[:, 0].to(torch.float32, copy=True)  # a view would keep the table


def _generator(key: str) -> torch.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _gaussian(size: int, k: int, key: str, like: Tensor) -> Tensor | None:
    if size <= k:
        return None
    matrix = torch.randn(size, k, generator=_generator(key), dtype=torch.float32) / k**0.5
    return matrix.to(device=like.device, dtype=like.dtype)


def _outer(rows: Tensor, cols: Tensor, places: Places | None) -> Tensor:
    return bmm_wide(rows.mT, cols) if places is None else places.outer(widen(rows), widen(cols))
