"""Which document of its row a position is of, where gradients are kept apart by document rather than by row.

A model that keeps the documents of a row apart, by its attention mask, is one model run on each of them: what is found
at a position, in the forward and in the backward, depends on that position's document alone. So the gradient of a
document's loss is the sum of what its positions add, and a row's terms need no more than to be added up by document.

Shapes: B rows of T positions, P documents in all, in order of row and position. A document that goes on from another
row is one of its own here: a piece.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from presence_ds.errors import AttributionError, ConfigError
from presence_ds.transfers import to_device

LIKE = 4  # how many times the positions of another a document may have, for both to be multiplied together


def sum_by_id(ids: Tensor, cols: Tensor, count: int) -> Tensor:
    """Σ cols[…] over equal ids: ids [B, T] int64 below ``count``, cols [B, T, C], result [count, C].

    What torch's own embedding does in its backward; unlike ``index_add_`` it adds in the same order every time on a
    GPU too.
    """
    summed: Tensor = torch.ops.aten.embedding_dense_backward(cols, ids, count, -1, False)
    return summed


class Places:
    """The documents of the positions of a tensor [B, T, ...], T being of any length that the model makes of a row.

    Attributes:
        ids: [B, T] int64 on the device, below P; P at padding.
        count: P.
    """

    def __init__(self, ids: Tensor, count: int, device: torch.device | str) -> None:
        """``ids`` are on the host."""
        self.ids = to_device(ids, device)
        self.count = count
        self._host = ids
        self._only: tuple[Tensor, Tensor, Places] | None = None  # what `only` was asked last, and its answer

    def sum(self, values: Tensor) -> Tensor:
        """Σ over the positions of every document: [B, T, …] to [P, …]; differentiable."""
        sizes = values.shape[2:]
        summed = sum_by_id(self.ids, values.reshape(*values.shape[:2], sizes.numel()), self.count + 1)
        return summed[: self.count].view(self.count, *sizes)

    def spread(self, values: Tensor) -> Tensor:
        """What every position's document has of ``values`` [P]: [B, T], 0 at padding."""
        return torch.cat([values, values.new_zeros(1)])[self.ids]

    def outer(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Σ over the positions of every document of rows ⊗ cols: [B, T, R] and [B, T, C] to [P, R, C]."""
        padded = [
            torch.cat([part, part.new_zeros(1, part.shape[1])]) for part in (rows.flatten(0, 1), cols.flatten(0, 1))
        ]
        found = rows.new_zeros(self.count, rows.shape[2], cols.shape[2])
        for numbers, index in self._alike:
            left, right = (part[index] for part in padded)
            found[numbers] = torch.bmm(left.mT, right)
        return found

    def lookup(self, ids: Tensor, cols: Tensor, num_rows: int) -> Tensor:
        """Σ over the positions of every document of e(ids) ⊗ cols: [B, T] and [B, T, C] to [P, num_rows, C]."""
        count = self.count * num_rows
        summed = sum_by_id(self.ids * num_rows + ids, cols, count + num_rows)
        return summed[:count].view(self.count, num_rows, cols.shape[2])

    def only(self, kept: Tensor) -> "tuple[Tensor, Places]":
        """The positions of documents ``kept`` ([n] int64): [m] int64 on the device, of B · T; and `Places` [1, m]."""
        if self._only is None or self._only[0] is not kept:  # every term of a parameter asks for the same ones
            numbers = torch.full((self.count + 1,), -1)
            numbers[kept.cpu()] = torch.arange(len(kept))
            found = numbers[self._host.flatten()]
            index = (found >= 0).nonzero().flatten()
            places = Places(found[index][None], len(kept), self.ids.device)
            self._only = kept, to_device(index, self.ids.device), places
        return self._only[1:]

    @cached_property
    def _alike(self) -> list[tuple[Tensor, Tensor]]:
        """Documents of like size side by side: their numbers [n] and positions [n, longest], of B · T, which is none.

        No document of a group is a `LIKE`-th of its longest or less: a single long one does not pad all the others.
        Both are int64 on the device.
        """
        flat = self._host.flatten()
        order = flat.argsort(stable=True)
        sizes = torch.bincount(flat, minlength=self.count + 1)[: self.count]
        starts = sizes.cumsum(0) - sizes
        found: list[tuple[Tensor, Tensor]] = []
        longest = int(sizes.max())
        while longest:
            numbers = ((sizes <= longest) & (sizes * LIKE > longest)).nonzero().flatten()
            columns = torch.arange(longest)
            index = order[(starts[numbers, None] + columns).clamp(max=len(flat) - 1)]
            index = index.where(columns < sizes[numbers, None], len(flat))
            found.append((to_device(numbers, self.ids.device), to_device(index, self.ids.device)))
            longest = int(sizes.where(sizes * LIKE <= longest, 0).max())
        return found


class Documents:
    """The documents of a micro-batch.

    Attributes:
        count: P, at least one for each row.
        num_rows: B.
        rows: [P] int64 on the device, the row that each is in.
        targets: of the positions that labels belong to.
    """

    def __init__(self, indices: Sequence[Tensor], device: torch.device | str) -> None:
        """Number the documents of all rows.

        Args:
            indices: [B, T] int64, of the model's inputs and, for an encoder-decoder model, of the decoder's, whose
                labels they are; those of a row's documents from 0 on, −1 at padding. They are looked at on the host.

        Raises:
            ConfigError: they number no documents.
        """
        sequences = [part.cpu() for part in indices]
        for part in sequences:
            if part.dim() != 2 or part.is_floating_point() or len(part) != len(sequences[0]):
                raise ConfigError(
                    f"document_indices are of shape {list(part.shape)} and {part.dtype}: give int64 [B, T]"
                )
            if part.numel() and not -1 <= int(part.min()) <= int(part.max()) < part.shape[1]:
                raise ConfigError(
                    f"document_indices are from {int(part.min())} to {int(part.max())}: give the documents of every "
                    f"row numbers from 0 on, and -1 to padding"
                )
        sizes = torch.stack([part.amax(1) + 1 for part in sequences]).amax(0).clamp(min=1)
        first = sizes.cumsum(0) - sizes
        self.count = int(sizes.sum())
        self.num_rows = len(sizes)
        rows = torch.arange(len(sizes)).repeat_interleave(sizes)
        self.rows = to_device(rows, device)
        self._device = device
        self._of_row = [range(start, start + size) for start, size in zip(first.tolist(), sizes.tolist(), strict=True)]
        self._sequences = [torch.where(part < 0, self.count, part + first[:, None]) for part in sequences]
        self._places: dict[torch.Size, Places] = {}
        self._like: dict[torch.Size, Tensor] = {}
        self.targets = Places(self._sequences[-1], self.count, device)
        if len(sequences) == 1:
            self._places[sequences[0].shape] = self.targets

    @cached_property
    def numbers(self) -> Tensor:
        """[P] int64 on the device, which of its row each is."""
        return to_device(torch.cat([torch.arange(len(own)) for own in self._of_row]), self._device)

    def of_row(self, row: int) -> range:
        """Numbers of the documents of a row."""
        return self._of_row[row]

    def places(self, shape: torch.Size) -> Places:
        """Those of a tensor whose dimensions but the last, of channels, are ``shape``: [B, …, T, …] or [B · T, …].

        Raises:
            AttributionError: none of its dimensions, or no single one, is that of positions.
        """
        if shape not in self._places:
            ids = _broadcastable(*self._find(shape), len(shape)).expand(shape)
            self._places[shape] = Places(ids.reshape(self.num_rows, -1), self.count, self._device)
        return self._places[shape]

    def like(self, tensor: Tensor) -> Tensor:
        """Numbers of the documents of ``tensor``, of as many dimensions as it has, to broadcast; raises as `places`."""
        shape = tensor.shape
        if shape not in self._like:
            try:
                ids, axis = self._find(shape[:-1])
            except AttributionError:
                ids, axis = self._find(shape)
            self._like[shape] = to_device(_broadcastable(ids, axis, len(shape)), self._device)
        return self._like[shape]

    def have_positions(self, kept: Tensor) -> bool:
        """Whether some of those ``kept`` ([P] bool, host) have positions in every sequence; padding alone has none."""
        return all(bool((self._sizes(ids) * kept).any()) for ids in self._sequences)

    def replaced(self, values: Any, kept: Tensor) -> Any:
        """``values``, a mapping or tuple, with what documents have that are not ``kept`` ([P] bool, host) replaced.

        In every tensor [B, T, …] it becomes that of the longest document that is kept, cut or over and over; there has
        to be one (`have_positions`).
        """
        if isinstance(values, dict):
            return {name: self._replaced(value, kept) for name, value in values.items()}
        return tuple(self._replaced(value, kept) for value in values)

    def _replaced(self, value: Any, kept: Tensor) -> Any:
        ids = next((ids for ids in self._sequences if isinstance(value, Tensor) and value.shape[:2] == ids.shape), None)
        if ids is None:
            return value
        flat, sizes = ids.flatten(), self._sizes(ids)
        good = (flat == int((sizes * kept).argmax())).nonzero().flatten()
        source = torch.arange(len(flat))
        for number in (~kept & (sizes > 0)).nonzero().flatten():
            places = (flat == number).nonzero().flatten()
            source[places] = good[torch.arange(len(places)) % len(good)]
        return value.flatten(0, 1)[to_device(source, value.device)].view(value.shape)

    def _sizes(self, ids: Tensor) -> Tensor:
        """Positions of every document in a sequence: [P]."""
        return torch.bincount(ids.flatten(), minlength=self.count + 1)[: self.count]

    def _find(self, shape: torch.Size) -> tuple[Tensor, int]:
        """The sequence whose positions ``shape`` has, and in which of its dimensions; 0: together with the rows."""
        found: list[tuple[Tensor, int]] = []
        for ids in self._sequences:
            if shape[0] == len(ids):
                found += [(ids, axis) for axis, size in enumerate(shape) if axis and size == ids.shape[1]]
            elif shape[0] == ids.numel():
                found.append((ids, 0))
        if not found or any(axis != found[0][1] or not torch.equal(ids, found[0][0]) for ids, axis in found):
            raise AttributionError(
                f"a module has a tensor of shape {list(shape)} and channels, for rows of "
                f"{' and '.join(str(ids.shape[1]) for ids in self._sequences)} positions: which of them are of one "
                f"document cannot be told; use presence.granularity sample, or rows of another length"
            )
        return found[0]


def _broadcastable(ids: Tensor, axis: int, dimensions: int) -> Tensor:
    """``ids`` [B, T] in as many dimensions, with T at ``axis``; at 0 it is together with B."""
    if not axis:
        return ids.reshape(-1, *[1] * (dimensions - 1))
    return ids.view(len(ids), *(ids.shape[1] if at == axis else 1 for at in range(1, dimensions)))
