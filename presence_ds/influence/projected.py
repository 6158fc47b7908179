"""Unbiased estimates of squared per-sample gradient norms from two-sided Gaussian projections.

For a parameter with per-sample gradient G (R × C): S = P_rowᵀ G P_col with P_row (R × k) and P_col (C × k), entries
N(0, 1/k), so that E‖S‖² = ‖G‖². S is linear in G, so the terms of a tied or re-used parameter are projected with the
same pair and added before the norm. The relative variance is (1 + 2/k)² − 1 for a rank-one G and smaller for higher
rank; it averages out over parameters, whose projections are independent.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from presence_ds.capture import DenseTerm, LookupTerm, OuterTerm, Term, full_shape, sum_by_id_apart, widen
from presence_ds.influence.outer import project, sketch_outer


class Projection:
    """The pair (P_row, P_col) of one parameter.

    Seeded by the parameter's *name*, so it is the same on every rank, after every resume and in every order of
    creation. A side no wider than k is left as it is: that costs nothing and adds no variance. So are vectors.

    Attributes:
        size: number of elements of one sample's sketch.
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
        self._row = self._col = None
        self._kernels = kernels
        rows, cols = shape[0] if shape else 1, shape[1:].numel()
        if k is not None and len(shape) > 1:
            like = torch.empty(0, device=device, dtype=parameter.dtype)
            self._row = _gaussian(rows, k, f"{seed}:{name}:row", like)
            self._col = _gaussian(cols, k, f"{seed}:{name}:col", like)
        self.size = (rows if self._row is None else k or 0) * (cols if self._col is None else k or 0)

    def sketch(self, term: Term) -> Tensor:
        """P_rowᵀ G_i P_col of what ``term`` adds to G_i: [B, ≤k, ≤k] in float32 (float64 if the term is).

        By document it is [P, ≤k, ≤k]: positions are dealt out once they are narrow. A vector's is [B, p]. Sketches are
        linear in the term: those of one parameter's terms add up.
        """
        match term:
            case OuterTerm():
                if term.places is None:
                    return sketch_outer(term.rows, term.cols, self._row, self._col, kernels=self._kernels)
                rows, cols = widen(project(term.rows, self._row)), widen(project(term.cols, self._col))
                return term.places.outer(rows, cols)
            case LookupTerm():
                cols = widen(project(term.cols, self._col))
                if self._row is not None:
                    rows = widen(self._row[term.ids])
                    return torch.bmm(rows.mT, cols) if term.places is None else term.places.outer(rows, cols)
                if term.places is None:
                    return sum_by_id_apart(term.ids, cols, term.num_rows)
                return term.places.lookup(term.ids, cols, term.num_rows)
            case DenseTerm():
                if term.grads.dim() <= 2:
                    return widen(term.grads).view(len(term.grads), -1)
                rows = project(term.grads.flatten(2).mT, self._row).mT
                return widen(project(rows, self._col))


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
