"""Self-influence of the samples of a batch: SI_K(θ, z) = Σ_{k∈K} ‖∇_{θ_k} ℓ(f_θ, z)‖² (equation 3)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from presence_ds.capture import LookupTerm, OuterTerm, Term, wide
from presence_ds.errors import ConfigError
from presence_ds.influence import exact
from presence_ds.influence.projected import JointProjection, Projection
from presence_ds.influence.shared_inputs import SharedInputs


class SelfInfluence:
    """What is scored, and by which estimator.

    Attributes:
        selected: the parameters K, each with its name.
        keeps_sketches: whether gradients are kept as one vector per sample beside their norms.
        projections: of every selected parameter; None if nothing is projected and no sketches are kept.
        shared_inputs: their projections of what layers share.
        places: where the sketch of each selected parameter is among those of a sample.
        width: numbers in the sketches of one sample; 0 where there are none.
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
        self.places: dict[Tensor, slice] = {}
        self.width = 0
        self._is_exact = projection_dim is None
        self._joint: dict[int, JointProjection] = {}  # by width
        self._make_joint = partial(JointProjection, seed=seed, device=device)
        if not self._is_exact or keeps_sketches:
            self.projections = {
                parameter: Projection(parameter, name, projection_dim, seed, device, kernels=kernels)
                for parameter, name in self.selected.items()
            }
            self._place()
        self.shared_inputs = SharedInputs(self.projections or {})

    def _place(self) -> None:
        """Place the sketches of the selected parameters side by side."""
        assert self.projections is not None
        self.width, self.places = 0, {}
        for parameter in self.selected:
            size = self.projections[parameter].size
            self.places[parameter] = slice(self.width, self.width + size)
            self.width += size

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
        if self.projections is not None:
            self._place()

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
    """Scores one micro-batch while its input-gradient sweep runs: `add` is what a capture shows its terms to.

    Sketches are written to one slab, [B, `SelfInfluence.width`], and squared and added up once.
    """

    def __init__(self, influence: SelfInfluence) -> None:
        self._influence = influence
        self._slab: Tensor | None = None
        self._written: set[Tensor] = set()  # parameters with a sketch in it
        self._terms: dict[Tensor, list[Term]] = {}  # of those that are scored without one
        self._exact: dict[Tensor, Tensor] = {}  # squared norms, [B], of those that are complete

    @torch.no_grad()
    def add(self, parameter: Tensor, term: Term, last: bool) -> None:
        """Take in a term of ``parameter``; ``last`` if no other will come."""
        influence = self._influence
        if parameter not in influence.selected:
            return
        seen = parameter in self._written
        exact = influence.scores_exactly(term, alone=last and not seen)
        if exact:
            self._terms.setdefault(parameter, []).append(term)
            if last:
                self._complete(parameter)
        if influence.projections is not None and (influence.keeps_sketches or not exact):
            self._sketch(influence.projections[parameter], parameter, term, add=seen)

    def scores(self) -> Tensor:
        """SI of every sample, [B] in float32 (float64 for float64 models); NaN or infinite where a gradient is.

        Raises:
            ConfigError: the loss depends on no selected parameter.
        """
        self._influence.shared_inputs.forget()
        for parameter in [*self._terms]:  # a use on which the loss does not depend gave no term
            self._complete(parameter)
        return self._sum(self._influence.selected)

    def scores_apart(self) -> Tensor:
        """What of `scores` is in `SelfInfluence.apart`, [B]; to be called after it."""
        return self._sum(self._influence.apart)

    def sketches(self) -> Tensor:
        """The sketches of all selected parameters as one vector per sample, in the order of ``selected``: [B, …].

        To be called after `scores`.
        """
        if self._slab is None:
            raise _nothing_scored()
        for parameter, place in self._influence.places.items():
            if parameter not in self._written:
                self._slab[:, place] = 0.0
        return self._slab

    def _sketch(self, projection: Projection, parameter: Tensor, term: Term, *, add: bool) -> None:
        influence = self._influence
        if self._slab is None:
            self._slab = term.values.new_empty(term.units, influence.width, dtype=wide(term.values.dtype))
        out = self._slab[:, influence.places[parameter]].view(-1, *projection.shape)
        narrow = influence.shared_inputs.narrow(parameter, term) if isinstance(term, OuterTerm) else None
        projection.sketch(term, out, add=add, narrow_cols=narrow)
        self._written.add(parameter)

    @torch.no_grad()
    def _complete(self, parameter: Tensor) -> None:
        self._exact[parameter] = exact.squared_norms(self._terms.pop(parameter))

    @torch.no_grad()
    def _sum(self, parameters: Collection[Tensor]) -> Tensor:
        """Squared norms of all ``parameters`` together, [B]; 0 where there is nothing of them."""
        chosen = [parameter for parameter in self._influence.selected if parameter in parameters]  # in one order always
        parts = [self._exact[parameter] for parameter in chosen if parameter in self._exact]
        sketched = [
            self._influence.places[parameter]
            for parameter in chosen
            if parameter in self._written and parameter not in self._exact
        ]
        if self._slab is not None:
            parts += [self._slab[:, place].square().sum(1) for place in _joined(sketched)]
            nothing = self._slab.new_zeros(len(self._slab))
        elif self._exact:
            nothing = torch.zeros_like(next(iter(self._exact.values())))
        else:
            raise _nothing_scored()
        return torch.stack(parts).sum(0) if parts else nothing


def _joined(places: Iterable[slice]) -> list[slice]:
    """As few as possible, of ascending ones."""
    joined: list[slice] = []
    for place in places:
        if joined and joined[-1].stop == place.start:
            joined[-1] = slice(joined[-1].start, place.stop)
        else:
            joined.append(place)
    return joined


def _nothing_scored() -> ConfigError:
    return ConfigError("presence.layers selects only parameters that the loss does not depend on")
