"""What one use of a parameter adds to its per-sample gradients, in the form in which it is cheapest to keep.

A parameter's gradient for sample i is the sum of its terms. Terms are linear in the output gradient, so a parameter
that is used twice (a tied head, a module called in a loop) simply has two of them.

Shapes below: B samples, T positions of one sample, R rows and C columns of the parameter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class OuterTerm:
    """A matrix product's: G_i = Σ_t rows[i, t] ⊗ cols[i, t].

    Attributes:
        rows: [B, T, R].
        cols: [B, T, C], same dtype as rows.
    """

    rows: Tensor
    cols: Tensor

    def weighted_sum(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Σ_i weights[i] G_i as [R, C] in ``dtype``; ``weights`` is [B] float32 or wider."""
        rows, cols = self.rows, self.cols
        # The weight goes on the narrower factor: the head's output gradient is a whole vocabulary wide.
        if rows.shape[-1] <= cols.shape[-1]:
            rows = scale(rows, weights[:, None, None])
        else:
            cols = scale(cols, weights[:, None, None])
        return (rows.flatten(0, 1).mT @ cols.flatten(0, 1)).to(dtype)

    def select(self, samples: Tensor) -> "OuterTerm":
        """The term of the samples with indices ``samples`` ([n] int64) alone."""
        return OuterTerm(self.rows[samples], self.cols[samples])


@dataclass
class LookupTerm:
    """An embedding's: G_i = Σ_t e(ids[i, t]) ⊗ cols[i, t], with e(v) the v-th unit vector.

    Attributes:
        ids: [B, T] int64, below num_rows.
        cols: [B, T, C], zero where the embedding has no gradient (padding_idx).
        num_rows: R.
    """

    ids: Tensor
    cols: Tensor
    num_rows: int

    def weighted_sum(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Σ_i weights[i] G_i as [R, C] in ``dtype``; ``weights`` is [B] float32 or wider."""
        return sum_by_id(self.ids, scale(self.cols.to(dtype), weights[:, None, None]), self.num_rows)

    def select(self, samples: Tensor) -> "LookupTerm":
        """The term of the samples with indices ``samples`` ([n] int64) alone."""
        return LookupTerm(self.ids[samples], self.cols[samples], self.num_rows)


@dataclass
class DenseTerm:
    """The per-sample gradients themselves, for parameters as small as a norm's scale.

    Attributes:
        grads: [B, *parameter shape].
    """

    grads: Tensor

    def weighted_sum(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Σ_i weights[i] G_i with the parameter's shape in ``dtype``; ``weights`` is [B] float32 or wider."""
        grads = widen(self.grads)
        return torch.tensordot(weights.to(grads.dtype), grads, dims=1).to(dtype)

    def select(self, samples: Tensor) -> "DenseTerm":
        """The term of the samples with indices ``samples`` ([n] int64) alone."""
        return DenseTerm(self.grads[samples])


Term = OuterTerm | LookupTerm | DenseTerm


def sum_by_id(ids: Tensor, cols: Tensor, count: int) -> Tensor:
    """Σ cols[…] over equal ids: ids [B, T] int64 below ``count``, cols [B, T, C], result [count, C].

    What torch's own embedding does in its backward; unlike ``index_add_`` it adds in the same order every time on a
    GPU too.
    """
    summed: Tensor = torch.ops.aten.embedding_dense_backward(cols, ids, count, -1, False)
    return summed


def scale(values: Tensor, factors: Tensor) -> Tensor:
    """``values · factors``, in the dtype of ``values``; ``factors`` broadcast and are float32 or wider.

    The product is formed in the wider dtype and rounded once. Rounded by itself, to the 8 bits of bf16, a sample's
    weight would be off by up to 0.4 % in every element alike, which no sum averages out. On a GPU that is one kernel
    that converts as it reads and writes; no wide copy of ``values`` exists.
    """
    product: Tensor = torch.mul(values, factors, out=torch.empty_like(values))
    return product


def widen(tensor: Tensor) -> Tensor:
    """``tensor`` in float32, or float64 if it is that already: what sums and norms are formed in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
