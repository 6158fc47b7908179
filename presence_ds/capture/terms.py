"""What one use of a parameter adds to its per-sample gradients, in the form in which it is cheapest to keep.

A parameter's gradient for sample i is the sum of its terms. Terms are linear in the output gradient, so a parameter
that is used twice (a tied head, a module called in a loop) simply has two of them.

Shapes below: B samples, T positions of one sample, R rows and C columns of the parameter. Where gradients are kept
apart by document a term has the `Places` of its positions; what is of a sample is then of one of P documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from presence_ds.capture.documents import Places, sum_by_id

_T = TypeVar("_T", bound="_ForSamples")

MAX_ELEMENTS = 1 << 25  # of a wide copy, 128 MiB in float32; more is copied part by part

# Where narrow factors can have a wide product: cuBLAS can, and the meta device, which stands in for a GPU in estimates.
_WIDE_PRODUCTS = {"meta"} if torch.version.hip else {"cuda", "meta"}
if "dtype" not in torch.ops.aten.bmm.overloads():  # torch before 2.8
    _WIDE_PRODUCTS = set()


@dataclass
class _ForSamples:
    """Tensors with the samples in their first dimension."""

    @property
    def values(self) -> Tensor:
        """Of its tensors the last, which is one of gradients or factors of them."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)][-1]

    @property
    def units(self) -> int:
        """How many samples, or documents, it is of."""
        places: Places | None = getattr(self, "places", None)
        return len(self.values) if places is None else places.count

    def select(self: _T, samples: Tensor) -> _T:
        """The term of the samples, or documents, with indices ``samples`` ([n] int64) alone."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        places: Places | None = getattr(self, "places", None)
        if places is None:
            chosen: Any = {name: value[samples] for name, value in tensors.items()}
            return replace(self, **chosen)
        index, places = places.only(samples)
        chosen = {name: value.flatten(0, 1)[index][None] for name, value in tensors.items()}
        return replace(self, **chosen | {"places": places})


@dataclass
class OuterTerm(_ForSamples):
    """A matrix product's: G_i = Σ_t rows[i, t] ⊗ cols[i, t].

    Attributes:
        rows: [B, T, R].
        cols: [B, T, C], same dtype as rows.
        places: of the positions, by document.
        sharers: parameters of which a term has the same tensor for columns, in one object for all these terms.
    """

    rows: Tensor
    cols: Tensor
    places: Places | None = None
    sharers: Sequence[Tensor] = ()

    def weighted_sum(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Σ_i weights[i] G_i as [R, C] in ``dtype``; ``weights`` is [B] float32 or wider."""
        # The weight goes on the narrower factor: the head's output gradient is a whole vocabulary wide.
        if self.rows.shape[-1] <= self.cols.shape[-1]:
            return _products(scale(self.rows, _by_position(weights, self.places)), self.cols, dtype)
        return self.sum_with(self.weighted_cols(weights), dtype)

    @property
    def shares_weighted_cols(self) -> bool:
        """Whether it is cheapest to weight the columns, once for all terms that have them."""
        return len(self.sharers) > 1 and self.cols.shape[-1] <= len(self.sharers) * self.rows.shape[-1]

    def weighted_cols(self, weights: Tensor) -> Tensor:
        """``cols`` times the weight of their sample, or document."""
        return scale(self.cols, _by_position(weights, self.places))

    def sum_with(self, weighted_cols: Tensor, dtype: torch.dtype) -> Tensor:
        """`weighted_sum`, from what `weighted_cols` gave for one of the terms with the same columns."""
        return _products(self.rows, weighted_cols, dtype)


@dataclass
class LookupTerm(_ForSamples):
    """An embedding's: G_i = Σ_t e(ids[i, t]) ⊗ cols[i, t], with e(v) the v-th unit vector.

    Attributes:
        ids: [B, T] int64, below num_rows.
        cols: [B, T, C], zero where the embedding has no gradient (padding_idx).
        num_rows: R.
        places: of the positions, by document.
    """

    ids: Tensor
    cols: Tensor
    num_rows: int
    places: Places | None = None

    def weighted_sum(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Σ_i weights[i] G_i as [R, C] in ``dtype``; ``weights`` is [B] float32 or wider."""
        return sum_by_id(self.ids, scale(self.cols.to(dtype), _by_position(weights, self.places)), self.num_rows)


@dataclass
class DenseTerm(_ForSamples):
    """The per-sample gradients themselves, for parameters as small as a norm's scale.

    Attributes:
        grads: [B, *parameter shape].
    """

    grads: Tensor

    def weighted_sum(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Σ_i weights[i] G_i with the parameter's shape in ``dtype``; ``weights`` is [B] float32 or wider."""
        grads = widen(self.grads)
        return torch.tensordot(weights.to(grads.dtype), grads, dims=1).to(dtype)


Term = OuterTerm | LookupTerm | DenseTerm


def _products(rows: Tensor, cols: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ_t rows ⊗ cols over all positions of all samples: [R, C]."""
    return (rows.flatten(0, 1).mT @ cols.flatten(0, 1)).to(dtype)


def _by_position(weights: Tensor, places: Places | None) -> Tensor:
    """``weights`` of samples, [B], or of documents, to multiply [B, T, C] by."""
    return weights.view(-1, 1, 1) if places is None else places.spread(weights).unsqueeze(-1)


def sum_by_id_apart(ids: Tensor, cols: Tensor, count: int) -> Tensor:
    """`sum_by_id` of every sample by itself: [B, count, C]."""
    start = torch.arange(len(ids), device=ids.device).unsqueeze(1) * count
    return sum_by_id(ids + start, cols, len(ids) * count).view(len(ids), count, -1)


def scale(values: Tensor, factors: Tensor) -> Tensor:
    """``values · factors``, in the dtype of ``values``; ``factors`` broadcast, in any dtype that has them unrounded.

    The product is formed in float32 or wider and rounded once. Rounded by itself, to the 8 bits of bf16, a sample's
    weight would be off by up to 0.4 % in every element alike, which no sum averages out. On a GPU that is one kernel
    that converts as it reads and writes; no wide copy of ``values`` exists.
    """
    product: Tensor = torch.mul(values, factors, out=torch.empty_like(values))
    return product


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums and norms of ``dtype`` are formed in: float32, or float64 if it is that already."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def widen(tensor: Tensor) -> Tensor:
    """``tensor`` in the dtype that sums and norms are formed in."""
    return tensor.to(wide(tensor.dtype))


def bmm_wide(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Batched product, its sums formed and left in `wide` of the factors' dtype: [B, n, t] and [B, t, m] to [B, n, m].

    ``out`` of any strides, where there is one, gets it.

    No wide copy of a narrow factor exists on a GPU. On other devices there is one of `MAX_ELEMENTS` numbers at a time.
    """
    dtype = wide(a.dtype)
    if a.dtype == b.dtype == dtype:
        return torch.bmm(a, b, out=out)
    if a.dtype == b.dtype and a.device.type in _WIDE_PRODUCTS:
        return torch.bmm(a, b, out_dtype=dtype) if out is None else torch.bmm(a, b, out_dtype=dtype, out=out)
    step = max(1, MAX_ELEMENTS // max(1, len(a) * max(a.shape[1], b.shape[2])))
    parts = zip(a.split(step, dim=2), b.split(step, dim=1), strict=True)
    found = torch.bmm(*map(widen, next(parts)), out=out)
    for left, right in parts:
        found.baddbmm_(widen(left), widen(right))
    return found
