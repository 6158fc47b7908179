"""Exact squared norms of per-sample gradients, from the terms of a parameter.

‖Σ_c G_c‖² = Σ_c ‖G_c‖² + 2 Σ_{c<d} ⟨G_c, G_d⟩ over the terms c, d of one parameter: tied and re-used parameters are
exact because every pair of uses is counted. All inner products are per sample, [B], in float32 or wider; by document,
[P], those of pairs of positions are added up where both are of one document.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from presence_ds.capture import (
    DenseTerm,
    LookupTerm,
    OuterTerm,
    Places,
    Term,
    bmm_wide,
    sum_by_id,
    sum_by_id_apart,
    widen,
)

MAX_ELEMENTS = 1 << 25  # of one temporary; larger work is split over samples, and what is left over rows or columns


def squared_norms(terms: Sequence[Term]) -> Tensor:
    """‖G_i‖² of one parameter, [B] float32 (float64 if the terms are).

    Beside the terms there are never more than a few temporaries of `MAX_ELEMENTS`, however many rows the parameter has
    (a vocabulary), and positions the samples.
    """
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
                return bmm_wide(b.rows, a.grads).mul_(b.cols).flatten(1).sum(1)
            case LookupTerm():
                picked = widen(a.grads.gather(1, b.ids.unsqueeze(-1).expand_as(b.cols)))
                return picked.mul_(b.cols).flatten(1).sum(1)
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
    """‖Σ_t r_t ⊗ c_t‖², some of the r at a time."""
    parts = _parts(rows, dim=2, elements=len(cols) * cols.shape[2])
    return _total([bmm_wide(part.mT, cols).flatten(1).square_().sum(1) for (part,) in parts])


def _ghost(rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor) -> Tensor:
    """⟨Σ_t r_t ⊗ c_t, Σ_s r'_s ⊗ c'_s⟩ = Σ_{t,s} (r_t · r'_s)(c_t · c'_s), some t at a time.

    The ids [b, T] of a lookup stand for rows [b, T, R] that are unit vectors; not for the others alone.
    """
    parts = _parts(rows, cols, dim=1, elements=len(cols) * other_cols.shape[1])
    return _total([_products(ours, c, other_rows, other_cols).flatten(1).sum(1) for ours, c in parts])


def _ghost_apart(
    rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor, own: Tensor, others: Tensor
) -> Tensor:
    """What of `_ghost` a position has with those of its document, [b, T]; ``own`` [b, T] and ``others`` number them."""
    found = [
        _products(ours, c, other_rows, other_cols).masked_fill_(ids.unsqueeze(2) != others.unsqueeze(1), 0.0).sum(2)
        for ours, c, ids in _parts(rows, cols, own, dim=1, elements=len(cols) * other_cols.shape[1])
    ]
    return torch.cat(found, dim=1)


def _products(rows: Tensor, cols: Tensor, other_rows: Tensor, other_cols: Tensor) -> Tensor:
    """(r_t · r'_s)(c_t · c'_s), [b, T, S]."""
    products = bmm_wide(cols, other_cols.mT)
    if rows.dim() == 3:
        return products.mul_(bmm_wide(rows, other_rows.mT))
    if other_rows.dim() == 3:
        return products.mul_(other_rows.gather(2, rows.unsqueeze(1).expand_as(products.mT)).mT)
    return products.mul_(rows.unsqueeze(2) == other_rows.unsqueeze(1))


def _sum_by_id(ids: Tensor, cols: Tensor, places: Places | None = None) -> Tensor:
    """‖Σ_t e(x_t) ⊗ c_t‖²: the columns of equal ids are added first, in T·C; some columns at a time."""
    if places is not None:  # all rows at once, an id being another one in every document
        ids, cols = (places.ids * (ids.max() + 1) + ids).view(1, -1), cols.reshape(1, -1, cols.shape[2])
    order = ids.argsort(dim=1, stable=True)  # equal ids are then added in the same order every time
    sorted_ids = ids.gather(1, order)
    is_new = torch.ones_like(sorted_ids, dtype=torch.bool)
    is_new[:, 1:] = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    group = is_new.cumsum(1) - 1  # which distinct id of its sample a position holds

    def squares(part: Tensor) -> Tensor:
        sums = sum_by_id_apart(group, widen(part.gather(1, order.unsqueeze(-1).expand_as(part))), ids.shape[1])
        return (sums.flatten(1) if places is None else sums).square_().sum(-1)

    total = _total([squares(part) for (part,) in _parts(cols, dim=2, elements=ids.numel())])
    if places is None:
        return total
    documents = places.ids.view(1, -1).gather(1, order)
    documents = torch.full_like(group, places.count).scatter_(1, group, documents)  # of every distinct id
    return sum_by_id(documents, total.unsqueeze(2), places.count + 1)[: places.count, 0]


def _total(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack([*parts]).sum(0)


def _by_samples(function: Callable[..., Tensor], elements: int, *tensors: Tensor) -> Tensor:
    """Apply ``function`` to as many samples at a time as keep ``elements`` per sample within `MAX_ELEMENTS`."""
    parts = _parts(*tensors, dim=0, elements=elements)
    found = [function(*part) for part in parts]
    return found[0] if len(found) == 1 else torch.cat(found)


def _parts(*tensors: Tensor, dim: int, elements: int) -> list[tuple[Tensor, ...]]:
    """``tensors`` cut alike along ``dim``, ``elements`` for each of its numbers being within `MAX_ELEMENTS`."""
    step = max(1, MAX_ELEMENTS // max(1, elements))
    if tensors[0].shape[dim] <= step:
        return [tensors]
    return [*zip(*(tensor.split(step, dim) for tensor in tensors), strict=True)]
