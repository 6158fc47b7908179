"""Self-influence of the samples of a batch: SI_K(θ, z) = Σ_{k∈K} ‖∇_{θ_k} ℓ(f_θ, z)‖² (equation 3)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from presence_ds.capture import LookupTerm, Term
from presence_ds.errors import ConfigError
from presence_ds.influence import exact
from presence_ds.influence.projected import JointProjection, Projection


class SelfInfluence:
    """What is scored, and by which estimator.

    Attributes:
        selected: the parameters K, each with its name.
        keeps_sketches: whether gradients are kept as one vector per sample rather than reduced to their norms.
        projections: of every selected parameter; None if squared norms are computed without.
        joint: of all of them together, where sketches are kept and projected.
    """

    def __init__(
        self,
        selected: Mapping[Tensor, str],
        projection_dim: int | None,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        keeps_sketches: bool = False,
    ) -> None:
        """Score over ``selected``, exactly if ``projection_dim`` is None, else by projections of that width.

        Embeddings that are used in no other way are scored exactly in any case, which costs less than a projection.
        ``device`` is where the model computes.
        """
        self.selected = dict(selected)
        self.keeps_sketches = keeps_sketches
        self.projections: dict[Tensor, Projection] | None = None
        self.joint: JointProjection | None = None
        self._joint: Callable[[Mapping[str, int]], JointProjection] | None = None
        if projection_dim is None and not keeps_sketches:
            return
        self.projections = {
            parameter: Projection(parameter, name, projection_dim, seed, device)
            for parameter, name in self.selected.items()
        }
        if projection_dim is not None and keeps_sketches:
            self._joint = partial(JointProjection, width=projection_dim**2, seed=seed, device=device)
            self.forget()

    def forget(self, *parameters: Tensor) -> None:
        """Leave ``parameters`` out of the self-influence."""
        for parameter in parameters:
            self.selected.pop(parameter, None)
        if self._joint is not None and self.projections is not None:
            sizes = {name: self.projections[parameter].size for parameter, name in self.selected.items()}
            self.joint = self._joint(sizes)

    @torch.no_grad()
    def __call__(self, terms: Mapping[Tensor, Sequence[Term]]) -> Tensor:
        """SI of every sample from the kept ``terms`` of all parameters, [B]; see `ScoreSweep.scores`."""
        sweep = ScoreSweep(self)
        for parameter, uses in terms.items():
            for number, term in enumerate(uses, start=1):
                sweep.add(parameter, term, number == len(uses))
        return sweep.scores()


class ScoreSweep:
    """Scores one micro-batch while its input-gradient sweep runs: `add` is what a capture shows its terms to."""

    def __init__(self, influence: SelfInfluence) -> None:
        self._influence = influence
        self._total: Tensor | None = None  # [B], of the parameters that are complete
        self._pending: dict[Tensor, list[Term]] = {}
        self._sketches: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def add(self, parameter: Tensor, term: Term, last: bool) -> None:
        """Take in a term of ``parameter``; ``last`` if no other will come."""
        influence = self._influence
        if parameter not in influence.selected:
            return
        seen = self._sketches.get(parameter)
        # All there is of an embedding's gradient: its norm costs less than its projection.
        is_lookup_alone = last and seen is None and isinstance(term, LookupTerm) and not influence.keeps_sketches
        if influence.projections is None or is_lookup_alone:
            self._pending.setdefault(parameter, []).append(term)
        else:
            sketch = influence.projections[parameter].sketch(term)
            self._sketches[parameter] = sketch if seen is None else seen + sketch
        if last and not influence.keeps_sketches:
            self._complete(parameter)

    def scores(self) -> Tensor:
        """SI of every sample, [B] in float32 (float64 for float64 models); NaN or infinite where a gradient is.

        Raises:
            ConfigError: the loss depends on no selected parameter.
        """
        if self._influence.keeps_sketches:
            return self.sketches().square().sum(1)
        for parameter in [*self._pending, *self._sketches]:  # a use on which the loss does not depend gave no term
            self._complete(parameter)
        if self._total is None:
            raise _nothing_scored()
        return self._total

    def sketches(self) -> Tensor:
        """The sketches of all selected parameters as one vector per sample, in the order of ``selected``: [B, …]."""
        found = next(iter(self._sketches.values()), None)
        if found is None:
            raise _nothing_scored()
        projections = self._influence.projections or {}
        parts = (
            self._sketches[parameter].flatten(1)
            if parameter in self._sketches
            else found.new_zeros(len(found), projections[parameter].size)
            for parameter in self._influence.selected
        )
        return torch.cat([*parts], dim=1)

    @torch.no_grad()
    def _complete(self, parameter: Tensor) -> None:
        if parameter in self._pending:
            part = exact.squared_norms(self._pending.pop(parameter))
        else:
            part = self._sketches.pop(parameter).flatten(1).square().sum(1)
        self._total = part if self._total is None else self._total + part


def _nothing_scored() -> ConfigError:
    return ConfigError("presence.layers selects only parameters that the loss does not depend on")
