"""Self-influence of the samples of a batch: SI_K(θ, z) = Σ_{k∈K} ‖∇_{θ_k} ℓ(f_θ, z)‖² (equation 3)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from presence_ds.capture import Term, full_shape
from presence_ds.errors import ConfigError
from presence_ds.influence import exact, projected


class SelfInfluence:
    """Scores samples from the gradient terms of their captured pass."""

    def __init__(
        self,
        selected: Mapping[Tensor, str],
        projection_dim: int | None,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Score over ``selected`` (parameter to name), exactly if ``projection_dim`` is None, else by projections.

        ``device`` is where the model computes.
        """
        self._projections: dict[Tensor, projected.Projection | None] | None = None
        self._selected = frozenset(selected)
        if projection_dim is not None:
            self._projections = {
                parameter: projected.Projection(parameter, name, projection_dim, seed, device)
                if len(full_shape(parameter)) > 1
                else None
                for parameter, name in selected.items()
            }

    @torch.no_grad()
    def __call__(self, terms: Mapping[Tensor, Sequence[Term]]) -> Tensor:
        """SI of every sample, [B] in float32 (float64 for float64 models); NaN or infinite where a gradient is."""
        total: Tensor | None = None
        for parameter, uses in terms.items():
            if parameter not in self._selected or not uses:
                continue
            if self._projections is None:
                part = exact.squared_norms(uses)
            else:
                part = projected.squared_norms(self._projections[parameter], uses)
            total = part if total is None else total + part
        if total is None:
            raise ConfigError("presence.layers selects only parameters that the loss does not depend on")
        return total
