"""What one forward pass and its input-gradient sweep leave behind: the terms of every parameter's gradient."""

import torch
from torch import Tensor, nn

from presence_ds.capture.terms import DenseTerm, LookupTerm, OuterTerm, Term
from presence_ds.errors import AttributionError


class Capture:
    """Collects gradient terms while the layer rules run.

    Attributes:
        batch_size: B, the number of samples.
        anchor: float32 scalar that requires grad and enters every instrumented call: it makes outputs differentiable
            where inputs are not (token ids), and the gradient with respect to it drives the sweep through all of them.
        names: path of every instrumented module in the model, for error messages.
        terms: terms of every parameter used, parameters in the order of their first use in the forward pass.
    """

    def __init__(self, batch_size: int, names: dict[nn.Module, str], device: torch.device) -> None:
        self.batch_size = batch_size
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        self.terms: dict[Tensor, list[Term]] = {}
        self.names = names

    def expect(self, *parameters: Tensor | None) -> None:
        """Note in the forward pass that ``parameters`` are used; None and frozen ones are passed over."""
        for parameter in parameters:
            if parameter is not None and parameter.requires_grad:
                self.terms.setdefault(parameter, [])

    def add_outer(self, parameter: Tensor, rows: Tensor, cols: Tensor) -> None:
        """Add Σ_t rows ⊗ cols; both [B·…, width] with the samples outermost."""
        if parameter.requires_grad:
            self.terms[parameter].append(OuterTerm(self._by_position(rows), self._by_position(cols)))

    def add_lookup(self, parameter: Tensor, ids: Tensor, cols: Tensor) -> None:
        """Add Σ_t e(ids) ⊗ cols; ids [B·…], cols [B·…, C]."""
        if parameter.requires_grad:
            term = LookupTerm(ids.reshape(self.batch_size, -1), self._by_position(cols), full_shape(parameter)[0])
            self.terms[parameter].append(term)

    def add_dense(self, parameter: Tensor | None, grads: Tensor) -> None:
        """Add per-sample gradients [B, *parameter shape]."""
        if parameter is not None and parameter.requires_grad:
            self.terms[parameter].append(DenseTerm(grads.detach()))

    def sum_positions(self, per_position: Tensor) -> Tensor:
        """[B·…, C] summed within each sample, in float32 or wider: [B, C]."""
        wide = torch.promote_types(per_position.dtype, torch.float32)
        return self._by_position(per_position).sum(dim=1, dtype=wide)

    def check_samples_first(self, module: nn.Module, tensor: Tensor, what: str) -> None:
        """Raise `AttributionError` unless the leading dimension of ``tensor`` can be read as B samples."""
        if tensor.dim() == 0 or tensor.shape[0] % self.batch_size != 0 or tensor.shape[0] == 0:
            raise AttributionError(
                f"module {self.names[module]} ({type(module).__name__}) has an {what} of shape "
                f"{list(tensor.shape)}, which does not divide into the {self.batch_size} samples of the batch: its "
                f"gradient cannot be attributed to samples, and strategy one_pass cannot train it; freeze the module "
                f"(requires_grad=False) or use a model whose modules keep the samples in the first dimension"
            )

    def _by_position(self, tensor: Tensor) -> Tensor:
        """[B·…, C] as [B, T, C], cut off from the graph, which refers to this capture and would keep it alive."""
        return tensor.detach().reshape(self.batch_size, -1, tensor.shape[-1])


def full_shape(parameter: Tensor) -> torch.Size:
    """Shape of the whole parameter, also while ZeRO-3 keeps only a partition of it on this rank."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
