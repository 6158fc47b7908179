"""Exact squared norms of per-sample gradients, from the terms of a parameter.

‖Σ_c G_c‖² = Σ_c ‖G_c‖² + 2 Σ_{c<d} ⟨G_c, G_d⟩ over the terms c, d of one parameter: tied and re-used parameters are
exact because every pair of uses is counted. All inner products are per sample, [B], in float32 or wider.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from presence_ds.capture import DenseTerm, LookupTerm, OuterTerm, Term, sum_by_id_apart, widen

MAX_ELEMENTS = 1 << 25  # of one temporary; larger work is split over samples


def squared_norms(terms: Sequence[Term]) -> Tensor:
    """‖G_i‖² of one parameter, [B] float32 (float64 if the terms are)."""
    total = _self_inner(terms[0])
    for index, term in enumerate(terms):
        if index:
            total = total + _self_inner(term)
        for other in terms[index + 1 :]:
            total = total + 2.0 * _inner(term, other)
    return total


def _self_inner(term: Term) -> Tensor:
    match term:
        case OuterTerm(rows, cols):
            _, positions, height = rows.shape
            width = cols.shape[-1]
            if height * width <= positions * (height + width):  # materialised, T·R·C, against ghost norm, T²·(R + C)
                return _by_samples(_materialised, height * width, rows, cols)
            return _by_samples(_ghost, positions**2, rows, cols, rows, cols)
        case LookupTerm():
            return _sum_by_id(term.ids, term.cols)
        case DenseTerm():
            return widen(term.grads).flatten(1).square().sum(1)


def _inner(a: Term, b: Term) -> Tensor:
    if isinstance(a, DenseTerm):
        match b:
            case DenseTerm():
                return (widen(a.grads) * widen(b.grads)).flatten(1).sum(1)
            case OuterTerm():
                return ((widen(b.rows) @ widen(a.grads)) * widen(b.cols)).flatten(1).sum(1)
            case LookupTerm():
                picked = torch.take_along_dim(widen(a.grads), b.ids.unsqueeze(-1), dim=1)
                return (picked * widen(b.cols)).flatten(1).sum(1)
    if isinstance(b, DenseTerm) or (isinstance(a, OuterTerm) and isinstance(b, LookupTerm)):
        return _inner(b, a)
    rows, other_rows = (term.ids if isinstance(term, LookupTerm) else term.rows for term in (a, b))
    return _by_samples(_ghost, rows.shape[1] * other_rows.shape[1], rows, a.cols, other_rows, b.cols)


def _materialised(rows: Tensor, cols: Tensor) -> Tensor:
    """‖Σ_t r_t ⊗ c_t‖²."""
    return torch.bmm(widen(rows).mT, widen(cols)).flatten(1).square().sum(1)


def _ghost(rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor) -> Tensor:
    """⟨Σ_t r_t ⊗ c_t, Σ_s r'_s ⊗ c'_s⟩ = Σ_{t,s} (r_t · r'_s)(c_t · c'_s).

    The ids [b, T] of a lookup stand for rows [b, T, R] that are unit vectors; not for the others alone.
    """
    if rows.dim() == 3:
        products = torch.bmm(widen(rows), widen(other_rows).mT)
    elif other_rows.dim() == 3:
        products = torch.take_along_dim(widen(other_rows), rows.unsqueeze(1), dim=2).mT
    else:
        products = rows.unsqueeze(2) == other_rows.unsqueeze(1)
    return (products * torch.bmm(widen(cols), widen(other_cols).mT)).flatten(1).sum(1)


def _sum_by_id(ids: Tensor, cols: Tensor) -> Tensor:
    """‖Σ_t e(x_t) ⊗ c_t‖²: the columns of equal ids are added first, in T·C."""
    order = ids.argsort(dim=1, stable=True)  # equal ids are then added in the same order every time
    sorted_ids = ids.gather(1, order)
    is_new = torch.ones_like(sorted_ids, dtype=torch.bool)
    is_new[:, 1:] = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    group = is_new.cumsum(1) - 1  # which distinct id of its sample a position holds
    columns = torch.take_along_dim(widen(cols), order.unsqueeze(-1), dim=1)
    return sum_by_id_apart(group, columns, ids.shape[1]).flatten(1).square().sum(1)


def _by_samples(function: Callable[..., Tensor], elements: int, *tensors: Tensor) -> Tensor:
    """Apply ``function`` to as many samples at a time as keep ``elements`` per sample within `MAX_ELEMENTS`."""
    step = max(1, MAX_ELEMENTS // elements)
    if len(tensors[0]) <= step:
        return function(*tensors)
    return torch.cat([function(*part) for part in zip(*(tensor.split(step) for tensor in tensors), strict=True)])
