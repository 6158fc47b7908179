"""What one forward pass and its input-gradient sweep leave behind: the terms of every parameter's gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from presence_ds.capture.documents import Documents, Places
from presence_ds.capture.terms import DenseTerm, LookupTerm, OuterTerm, Term, wide
from presence_ds.errors import AttributionError

Observer = Callable[[Tensor, Term, bool], None]  # (parameter, term, whether it is the parameter's last)


class Capture:
    """Collects gradient terms while the layer rules run.

    Terms are shown to ``observe`` the moment they exist, while they are still in the processor's cache, and are kept
    only if ``keep`` is set.

    Attributes:
        batch_size: B, the number of samples that terms are kept apart by; 1 adds up the whole micro-batch.
        documents: those that terms are kept apart by, rather than by the samples that hold them.
        anchor: float32 scalar that requires grad and enters every instrumented call: it makes outputs differentiable
            where inputs are not (token ids), and the gradient with respect to it drives the sweep through all of them.
        names: path of every instrumented module in the model, for error messages.
        forwards: what a call of an instrumented module runs outside of `Instrumentation.recording`: the forward of its
            class, or one set on the instance, such as a fused kernel.
        terms: terms of every parameter used, parameters in the order of their first use in the forward pass.
        shared: what rules make once for all modules that are alike, by a key of theirs.
        sweeping: set it when the forward pass is over: what runs again after that, for activation checkpointing, is no
            new use of a parameter.
    """

    def __init__(
        self,
        batch_size: int,
        names: dict[nn.Module, str],
        device: torch.device,
        *,
        observe: Observer | None = None,
        keep: bool = True,
        documents: Documents | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.documents = documents
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        self.forwards: dict[nn.Module, Callable[..., Any]] = {}
        self.terms: dict[Tensor, list[Term]] = {}
        self.names = names
        self.shared: dict[Any, Any] = {}
        self.sweeping = False
        self._observe = observe
        self._keep = keep
        self._cols_before: tuple[Any, ...] | None = None  # where those that `share` was given lie; they are not kept
        self._sharers: list[Tensor] = []
        self._missing: dict[Tensor, int] = {}  # uses in the forward pass whose term has not come yet

    @property
    def units(self) -> int:
        """How many samples, or documents, terms are kept apart by."""
        return self.batch_size if self.documents is None else self.documents.count

    def expect(self, *parameters: Tensor | None) -> None:
        """Note in the forward pass that ``parameters`` are used; None and frozen ones are passed over."""
        for parameter in parameters:
            if parameter is not None and parameter.requires_grad and not self.sweeping:
                self.terms.setdefault(parameter, [])
                self._missing[parameter] = self._missing.get(parameter, 0) + 1

    def share(self, parameter: Tensor, cols: Tensor) -> list[Tensor]:
        """Note in the forward pass that ``cols`` will be the columns of a term of ``parameter``.

        Returns:
            the parameters whose terms have these very numbers, as far as they follow each other; it grows with them.
        """
        # not whether it is the same object: ZeRO-3 gives every module a view of its own
        place = cols.storage_offset(), cols.shape, cols.stride(), cols.dtype, cols._version
        found = StorageWeakRef(cols.untyped_storage()), place
        if found != self._cols_before:
            self._cols_before, self._sharers = found, []
        if parameter.requires_grad:
            self._sharers.append(parameter)
        return self._sharers

    def add_outer(self, parameter: Tensor, rows: Tensor, cols: Tensor, sharers: Sequence[Tensor] = ()) -> None:
        """Add Σ_t rows ⊗ cols; both [B·…, width] with the samples outermost. ``sharers``: what `share` returned."""
        if parameter.requires_grad:
            parts = self._by_position(rows), self._by_position(cols)
            self._add(parameter, OuterTerm(*parts, self._places(rows), sharers))

    def add_lookup(self, parameter: Tensor, ids: Tensor, cols: Tensor) -> None:
        """Add Σ_t e(ids) ⊗ cols; ids [B·…], cols [B·…, C]."""
        if parameter.requires_grad:
            ids, places = ids.reshape(self.batch_size, -1), self._places(cols)
            self._add(parameter, LookupTerm(ids, self._by_position(cols), full_shape(parameter)[0], places))

    def add_dense(self, parameter: Tensor, grads: Tensor) -> None:
        """Add per-sample gradients [B, *parameter shape], or those of all documents."""
        if parameter.requires_grad:
            self._add(parameter, DenseTerm(grads.detach()))

    def add_summed(self, parameter: Tensor | None, per_position: Tensor) -> None:
        """Add Σ_t of what a vector has per position, [B·…, C], summed in float32 or wider."""
        if parameter is None or not parameter.requires_grad:
            return
        values, dtype, places = self._by_position(per_position), wide(per_position.dtype), self._places(per_position)
        self._add(
            parameter, DenseTerm(values.sum(dim=1, dtype=dtype) if places is None else places.sum(values.to(dtype)))
        )

    def check_samples_first(self, module: nn.Module, tensor: Tensor, what: str) -> None:
        """Raise `AttributionError` unless the leading dimension of ``tensor`` can be read as B samples."""
        if tensor.dim() == 0 or tensor.shape[0] % self.batch_size != 0 or tensor.shape[0] == 0:
            raise AttributionError(
                f"module {self.names[module]} ({type(module).__name__}) has an {what} of shape "
                f"{list(tensor.shape)}, which does not divide into the {self.batch_size} samples of the batch: its "
                f"gradient cannot be attributed to samples; freeze the module (requires_grad=False) or use a model "
                f"whose modules keep the samples in the first dimension"
            )

    def _add(self, parameter: Tensor, term: Term) -> None:
        self._missing[parameter] -= 1
        if self._keep:
            self.terms[parameter].append(term)
        if self._observe is not None:
            self._observe(parameter, term, self._missing[parameter] == 0)

    def _places(self, tensor: Tensor) -> Places | None:
        """Of [B·…, C], by document, if that is what terms are kept apart by."""
        return None if self.documents is None else self.documents.places(tensor.shape[:-1])

    def _by_position(self, tensor: Tensor) -> Tensor:
        """[B·…, C] as [B, T, C], cut off from the graph, which refers to this capture and would keep it alive."""
        if tensor.requires_grad:
            tensor = tensor.detach()
        if tensor.dim() == 3 and len(tensor) == self.batch_size:
            return tensor
        return tensor.reshape(self.batch_size, -1, tensor.shape[-1])


def full_shape(parameter: Tensor) -> torch.Size:
    """Shape of the whole parameter, also while ZeRO-3 keeps only a partition of it on this rank."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
