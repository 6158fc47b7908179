"""Self-influence of the samples of a batch: SI_K(θ, z) = Σ_{k∈K} ‖∇_{θ_k} ℓ(f_θ, z)‖² (equation 3)."""

from collections.abc import Collection, Mapping, Sequence
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
        keeps_sketches: whether gradients are kept as one vector per sample beside their norms.
        projections: of every selected parameter; None if nothing is projected and no sketches are kept.
    """

    def __init__(
        self,
        selected: Mapping[Tensor, str],
        projection_dim: int | None,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        keeps_sketches: bool = False,
        apart: Collection[Tensor] = (),
        kernels: bool = True,
    ) -> None:
        """Score over ``selected``, exactly if ``projection_dim`` is None, else by projections of that width.

        Embeddings that are used in no other way are scored exactly in any case, which costs less than a projection.
        Sketches change no score but by rounding; without ``projection_dim`` they are the gradients themselves.
        ``device`` is where the model computes. What is in the parameters ``apart`` is told by itself too.
        ``kernels`` is as in `sketch_outer`.
        """
        self.selected = dict(selected)
        self.apart = {parameter for parameter in apart if parameter in self.selected}
        self.keeps_sketches = keeps_sketches
        self.projections: dict[Tensor, Projection] | None = None
        self._is_exact = projection_dim is None
        self._joint: dict[int, JointProjection] = {}  # by width
        self._make_joint = partial(JointProjection, seed=seed, device=device)
        if not self._is_exact or keeps_sketches:
            self.projections = {
                parameter: Projection(parameter, name, projection_dim, seed, device, kernels=kernels)
                for parameter, name in self.selected.items()
            }

    @property
    def width(self) -> int:
        """Numbers in the sketches of one sample."""
        projections = self.projections or {}
        return sum(projections[parameter].size for parameter in self.selected if parameter in projections)

    def joint(self, width: int) -> JointProjection:
        """The projection of the sketches of all selected parameters together."""
        if width not in self._joint:
            assert self.projections is not None
            sizes = {name: self.projections[parameter].size for parameter, name in self.selected.items()}
            self._joint[width] = self._make_joint(sizes, width)
        return self._joint[width]

    def forget(self, *parameters: Tensor) -> None:
        """Leave ``parameters`` out of the self-influence."""
        for parameter in parameters:
            self.selected.pop(parameter, None)
        self._joint.clear()

    def scores_exactly(self, term: Term, *, alone: bool) -> bool:
        """Whether a squared norm is computed without a sketch; ``alone``: ``term`` is all there is of a gradient."""
        if self._is_exact:
            return not self.keeps_sketches  # which are the gradients then
        return alone and isinstance(term, LookupTerm)  # the norm of which costs less

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
        self._apart: Tensor | None = None  # [B], of those that are told by themselves
        self._exact: dict[Tensor, list[Term]] = {}  # of the others
        self._unscored: dict[Tensor, Tensor] = {}  # sketches
        self._sketches: dict[Tensor, Tensor] = {}  # that are kept

    @torch.no_grad()
    def add(self, parameter: Tensor, term: Term, last: bool) -> None:
        """Take in a term of ``parameter``; ``last`` if no other will come."""
        influence = self._influence
        if parameter not in influence.selected:
            return
        seen = self._unscored.get(parameter)
        exact = influence.scores_exactly(term, alone=last and seen is None)
        if exact:
            self._exact.setdefault(parameter, []).append(term)
        if influence.projections is not None and (influence.keeps_sketches or not exact):
            sketch = influence.projections[parameter].sketch(term)
            self._unscored[parameter] = sketch if seen is None else seen + sketch
        if last:
            self._complete(parameter)

    def scores(self) -> Tensor:
        """SI of every sample, [B] in float32 (float64 for float64 models); NaN or infinite where a gradient is.

        Raises:
            ConfigError: the loss depends on no selected parameter.
        """
        for parameter in {**self._exact, **self._unscored}:  # a use on which the loss does not depend gave no term
            self._complete(parameter)
        if self._total is None:
            raise _nothing_scored()
        return self._total

    def scores_apart(self) -> Tensor:
        """What of `scores` is in `SelfInfluence.apart`, [B]; to be called after it."""
        if self._total is None:
            raise _nothing_scored()
        return torch.zeros_like(self._total) if self._apart is None else self._apart

    def sketches(self) -> Tensor:
        """The sketches of all selected parameters as one vector per sample, in the order of ``selected``: [B, …].

        To be called after `scores`.
        """
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
        terms, sketch = self._exact.pop(parameter, None), self._unscored.pop(parameter, None)
        if sketch is not None and self._influence.keeps_sketches:
            self._sketches[parameter] = sketch
        if terms is not None:
            part = exact.squared_norms(terms)
        else:
            assert sketch is not None
            part = sketch.flatten(1).square().sum(1)
        self._total = part if self._total is None else self._total + part
        if parameter in self._influence.apart:
            self._apart = part if self._apart is None else self._apart + part


def _nothing_scored() -> ConfigError:
    return ConfigError("presence.layers selects only parameters that the loss does not depend on")
