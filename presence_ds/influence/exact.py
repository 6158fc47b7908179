"""Exact squared norms of per-sample gradients, from the terms of a parameter.

‖Σ_c G_c‖² = Σ_c ‖G_c‖² + 2 Σ_{c<d} ⟨G_c, G_d⟩ over the terms c, d of one parameter: tied and re-used parameters are
exact because every pair of uses is counted. All inner products are per sample, [B], in float32 or wider; by document,
[P], those of pairs of positions are added up where both are of one document.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from presence_ds.capture import DenseTerm, LookupTerm, OuterTerm, Places, Term, sum_by_id, sum_by_id_apart, widen

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
            if term.places is not None:
                return _by_document(term, term)
            if height * width <= positions * (height + width):  # materialised, T·R·C, against ghost norm, T²·(R + C)
                return _by_samples(_materialised, height * width, rows, cols)
            return _by_samples(_ghost, positions**2, rows, cols, rows, cols)
        case LookupTerm():
            return _sum_by_id(term.ids, term.cols, term.places)
        case DenseTerm():
            return widen(term.grads).flatten(1).square().sum(1)


def _inner(a: Term, b: Term) -> Tensor:
    if isinstance(a, DenseTerm):
        b = _dealt_out(b)
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
    if a.places is not None:
        return _by_document(a, b)
    rows, other_rows = (term.ids if isinstance(term, LookupTerm) else term.rows for term in (a, b))
    return _by_samples(_ghost, rows.shape[1] * other_rows.shape[1], rows, a.cols, other_rows, b.cols)


def _by_document(a: Term, b: Term) -> Tensor:
    """⟨a, b⟩ of two terms that are of positions, the second of an outer product unless both are lookups."""
    assert not isinstance(a, DenseTerm)
    assert not isinstance(b, DenseTerm)
    assert a.places is not None
    assert b.places is not None
    rows, other_rows = (term.ids if isinstance(term, LookupTerm) else term.rows for term in (a, b))
    own, others = a.places.ids, b.places.ids
    found = _by_samples(_ghost_apart, own.shape[1] * others.shape[1], rows, a.cols, other_rows, b.cols, own, others)
    return a.places.sum(found)


def _dealt_out(term: Term) -> Term:
    """The gradients of documents themselves, if ``term`` is kept apart by them: no more than a dense term has."""
    places = None if isinstance(term, DenseTerm) else term.places
    match term:
        case OuterTerm() if places is not None:
            return DenseTerm(places.outer(widen(term.rows), widen(term.cols)))
        case LookupTerm() if places is not None:
            return DenseTerm(places.lookup(term.ids, widen(term.cols), term.num_rows))
    return term


def _materialised(rows: Tensor, cols: Tensor) -> Tensor:
    """‖Σ_t r_t ⊗ c_t‖²."""
    return torch.bmm(widen(rows).mT, widen(cols)).flatten(1).square().sum(1)


def _ghost(rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor) -> Tensor:
    """⟨Σ_t r_t ⊗ c_t, Σ_s r'_s ⊗ c'_s⟩ = Σ_{t,s} (r_t · r'_s)(c_t · c'_s).

    The ids [b, T] of a lookup stand for rows [b, T, R] that are unit vectors; not for the others alone.
    """
    return _products(rows, cols, other_rows, other_cols).flatten(1).sum(1)


def _ghost_apart(
    rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor, own: Tensor, others: Tensor
) -> Tensor:
    """What of `_ghost` a position has with those of its document, [b, T]; ``own`` [b, T] and ``others`` number them."""
    products = _products(rows, cols, other_rows, other_cols)
    return products.masked_fill_(own.unsqueeze(2) != others.unsqueeze(1), 0.0).sum(2)


def _products(rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor) -> Tensor:
    """(r_t · r'_s)(c_t · c'_s), [b, T, S]."""
    if rows.dim() == 3:
        products = torch.bmm(widen(rows), widen(other_rows).mT)
    elif other_rows.dim() == 3:
        products = torch.take_along_dim(widen(other_rows), rows.unsqueeze(1), dim=2).mT
    else:
        products = rows.unsqueeze(2) == other_rows.unsqueeze(1)
    return products * torch.bmm(widen(cols), widen(other_cols).mT)


def _sum_by_id(ids: Tensor, cols: Tensor, places: Places | None = None) -> Tensor:
    """‖Σ_t e(x_t) ⊗ c_t‖²: the columns of equal ids are added first, in T·C."""
    if places is not None:  # all rows at once, an id being another one in every document
        ids, cols = (places.ids * (ids.max() + 1) + ids).view(1, -1), cols.reshape(1, -1, cols.shape[2])
    order = ids.argsort(dim=1, stable=True)  # equal ids are then added in the same order every time
    sorted_ids = ids.gather(1, order)
    is_new = torch.ones_like(sorted_ids, dtype=torch.bool)
    is_new[:, 1:] = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    group = is_new.cumsum(1) - 1  # which distinct id of its sample a position holds
    columns = torch.take_along_dim(widen(cols), order.unsqueeze(-1), dim=1)
    sums = sum_by_id_apart(group, columns, ids.shape[1])
    if places is None:
        return sums.flatten(1).square().sum(1)
    documents = places.ids.view(1, -1).gather(1, order)
    documents = torch.full_like(group, places.count).scatter_(1, group, documents)  # of every distinct id
    return sum_by_id(documents, sums.square().sum(2, keepdim=True), places.count + 1)[: places.count, 0]


def _by_samples(function: Callable[..., Tensor], elements: int, *tensors: Tensor) -> Tensor:
    """Apply ``function`` to as many samples at a time as keep ``elements`` per sample within `MAX_ELEMENTS`."""
    step = max(1, MAX_ELEMENTS // elements)
    if len(tensors[0]) <= step:
        return function(*tensors)
    return torch.cat([function(*part) for part in zip(*(tensor.split(step) for tensor in tensors), strict=True)])
