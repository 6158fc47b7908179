"""Layers that are given one tensor: q, k and v of an attention, gate and up of a feed-forward part."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from presence_ds.capture import OuterTerm
from presence_ds.influence.projected import Projection


class _Narrow(NamedTuple):
    sharers: Sequence[Tensor]
    product: Tensor  # [B, T, Σ k]
    places: dict[Tensor, slice]  # in its last dimension


class SharedInputs:
    """Projects what layers share in one product, several times as wide as that of each would be."""

    def __init__(self, projections: Mapping[Tensor, Projection]) -> None:
        self._projections = projections
        self._matrices: dict[tuple[Tensor, ...], tuple[Tensor, dict[Tensor, slice]]] = {}
        self._narrow: _Narrow | None = None  # of the last term that shares its columns

    def narrow(self, parameter: Tensor, term: OuterTerm) -> Tensor | None:
        """The columns of ``term`` times P_col, [B, T, k]; None if they are its alone."""
        if len(term.sharers) < 2 or self._projections[parameter].cols is None:
            return None
        if self._narrow is None or self._narrow.sharers is not term.sharers:
            matrix, places = self._side_by_side(term.sharers)
            self._narrow = _Narrow(term.sharers, term.cols @ matrix, places)
        place = self._narrow.places.get(parameter)
        return None if place is None else self._narrow.product[..., place]

    def forget(self) -> None:
        """No further term shares columns with those before."""
        self._narrow = None

    def _side_by_side(self, sharers: Sequence[Tensor]) -> tuple[Tensor, dict[Tensor, slice]]:
        """P_col of those that are scored, [C, Σ k], and where each of them is."""
        key = tuple(sharers)
        if key not in self._matrices:
            places: dict[Tensor, slice] = {}
            kept: list[Tensor] = []
            for parameter in dict.fromkeys(sharers):
                matrix = self._projections[parameter].cols if parameter in self._projections else None
                if matrix is not None:
                    start = sum(other.shape[1] for other in kept)
                    places[parameter] = slice(start, start + matrix.shape[1])
                    kept.append(matrix)
            self._matrices[key] = torch.cat(kept, dim=1), places
        return self._matrices[key]
