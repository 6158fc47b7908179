"""Exact squared norms of per-sample gradients, from the terms of a parameter.

‖Σ_c G_c‖² = Σ_c ‖G_c‖² + 2 Σ_{c<d} ⟨G_c, G_d⟩ over the terms c, d of one parameter: tied and re-used parameters are
exact because every pair of uses is counted. All inner products are per sample, [B], in float32 or wider.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from presence_ds.capture import DenseTerm, LookupTerm, OuterTerm, Term, sum_by_id, widen

MAX_ELEMENTS = 1 << 25  # of one temporary; larger work is split over samples


def squared_norms(terms: Sequence[Term]) -> Tensor:
    """‖G_i‖² of one parameter, [B] float32 (float64 if the terms are)."""
    total = torch.zeros((), dtype=torch.float32)
    for index, term in enumerate(terms):
        total = total.to(_factor(term).device) + _self_inner(term)
        for other in terms[index + 1 :]:
            total = total + 2.0 * _inner(term, other)
    return total


def _self_inner(term: Term) -> Tensor:
    match term:
        case OuterTerm():
            _, positions, rows = term.rows.shape
            cols = term.cols.shape[-1]
            if rows * cols <= positions * (rows + cols):  # materialised, T·R·C, against ghost norm, T²·(R + C)
                return _by_samples(_materialised, rows * cols, term.rows, term.cols)
            return _by_samples(_ghost, positions**2, term.rows, term.cols, term.rows, term.cols)
        case LookupTerm():
            return _sum_by_id(term.ids, term.cols)
        case DenseTerm():
            return widen(term.grads).flatten(1).square().sum(1)


def _inner(a: Term, b: Term) -> Tensor:
    match a, b:
        case OuterTerm(), OuterTerm():
            positions = a.rows.shape[1] * b.rows.shape[1]
            return _by_samples(_ghost, positions, a.rows, a.cols, b.rows, b.cols)
        case LookupTerm(), OuterTerm():
            positions = a.ids.shape[1] * b.rows.shape[1]
            return _by_samples(_lookup_outer, positions, a.ids, a.cols, b.rows, b.cols)
        case LookupTerm(), LookupTerm():
            positions = a.ids.shape[1] * b.ids.shape[1]
            return _by_samples(_lookup_lookup, positions, a.ids, a.cols, b.ids, b.cols)
        case DenseTerm(), DenseTerm():
            return (widen(a.grads) * widen(b.grads)).flatten(1).sum(1)
        case DenseTerm(), OuterTerm():
            return ((widen(b.rows) @ widen(a.grads)) * widen(b.cols)).flatten(1).sum(1)
        case DenseTerm(), LookupTerm():
            rows = torch.take_along_dim(widen(a.grads), b.ids.unsqueeze(-1), dim=1)
            return (rows * widen(b.cols)).flatten(1).sum(1)
        case _:
            return _inner(b, a)


def _materialised(rows: Tensor, cols: Tensor) -> Tensor:
    """‖Σ_t r_t ⊗ c_t‖²."""
    return (widen(rows).mT @ widen(cols)).flatten(1).square().sum(1)


def _ghost(rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor) -> Tensor:
    """⟨Σ_t r_t ⊗ c_t, Σ_s r'_s ⊗ c'_s⟩ = Σ_{t,s} (r_t · r'_s)(c_t · c'_s)."""
    return ((widen(rows) @ widen(other_rows).mT) * (widen(cols) @ widen(other_cols).mT)).flatten(1).sum(1)


def _lookup_outer(ids: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor) -> Tensor:
    """⟨Σ_t e(x_t) ⊗ c_t, Σ_s r'_s ⊗ c'_s⟩ = Σ_{t,s} r'_s[x_t] (c_t · c'_s)."""
    picked = torch.take_along_dim(widen(other_rows), ids.unsqueeze(1), dim=2)  # [b, S, T]
    return (picked.mT * (widen(cols) @ widen(other_cols).mT)).flatten(1).sum(1)


def _lookup_lookup(ids: Tensor, cols: Tensor, other_ids: Tensor, other_cols: Tensor) -> Tensor:
    """Σ_{t,s} [x_t = x'_s] (c_t · c'_s)."""
    same = ids.unsqueeze(2) == other_ids.unsqueeze(1)
    return ((widen(cols) @ widen(other_cols).mT) * same).flatten(1).sum(1)


def _sum_by_id(ids: Tensor, cols: Tensor) -> Tensor:
    """‖Σ_t e(x_t) ⊗ c_t‖²: the columns of equal ids are added first, in T·C."""
    batch_size, positions = ids.shape
    order = ids.argsort(dim=1, stable=True)  # equal ids are then added in the same order every time
    sorted_ids = ids.gather(1, order)
    is_new = torch.ones_like(sorted_ids, dtype=torch.bool)
    is_new[:, 1:] = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    group = is_new.cumsum(1) - 1  # which distinct id of its sample a position holds
    start = torch.arange(batch_size, device=ids.device).unsqueeze(1) * positions
    columns = torch.take_along_dim(widen(cols), order.unsqueeze(-1), dim=1)
    sums = sum_by_id(group + start, columns, batch_size * positions)
    return sums.view(batch_size, -1).square().sum(1)


def _by_samples(function, elements: int, *tensors: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """Apply ``function`` to as many samples at a time as keep ``elements`` per sample within `MAX_ELEMENTS`."""
    step = max(1, MAX_ELEMENTS // elements)
    parts = zip(*(tensor.split(step) for tensor in tensors), strict=True)
    return torch.cat([function(*part) for part in parts])


def _factor(term: Term) -> Tensor:
    return term.grads if isinstance(term, DenseTerm) else term.cols
