"""A normaliser and a weight function together: from the values of a signal to unnormalised weights."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from presence_ds.reweighting.clip import Clip
from presence_ds.reweighting.config import NormalizerKind, ReweightingConfig
from presence_ds.reweighting.log_zscore import LogZScore
from presence_ds.reweighting.moments import Moments
from presence_ds.reweighting.rank import Rank
from presence_ds.reweighting.saturating import Saturating
from presence_ds.reweighting.softmax import Softmax
from presence_ds.reweighting.zscore import ZScore


class Running(Protocol):
    """What is expected of the next step's figures, from those of earlier steps."""

    @property
    def current(self) -> Any:
        """None until the first update."""

    def update(self, figures: Any) -> None:
        """Take in the figures of one finished step."""

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class Normalizer(Protocol):
    """Makes the values of a signal comparable."""

    def fit(self, values: Tensor) -> Moments | None:
        """What `apply` takes, of ``values`` ([n], finite, n ≥ 1); None where the kind has no moments."""

    def apply(self, values: Tensor, moments: Moments | None) -> Tensor:
        """z-scores, [n] float64."""

    def running(self) -> Running | None:
        """An empty store of earlier steps' moments; None where the kind has none."""


class Weighting(Protocol):
    """Weighs samples by figures that are fitted to a step or expected of it: moments, or a level."""

    def fit(self, values: Tensor) -> Any:
        """Figures of ``values`` ([n], finite, n ≥ 1); None where the kind has none."""

    def running(self) -> Running | None:
        """An empty store of earlier steps' figures; None where the kind has none."""

    def terms(self, values: Tensor, figures: Any, tau: float, *, complete: bool) -> Tensor:
        """Unnormalised weights u of ``values`` ([n], finite, n ≥ 1), [n] float64, not negative.

        ``complete``: whether ``values`` are all finite samples of the step, and ``figures`` their own.
        """

    def describe(self, figures: Any) -> dict[str, float]:
        """The figures by the names they have in the statistics."""


class Uniform:
    """Every sample alike, whatever its score: the baseline."""

    def fit(self, values: Tensor) -> None:
        """Nothing to fit."""

    def running(self) -> None:
        """Nothing to follow."""

    def terms(self, values: Tensor, figures: None, tau: float, *, complete: bool) -> Tensor:
        """Ones."""
        return torch.ones_like(values, dtype=torch.float64)

    def describe(self, figures: None) -> dict[str, float]:
        """No figures."""
        return {}


class Tempered:
    """A weight function of τ and a normalised score."""

    def __init__(self, normalizer: Normalizer, function: Softmax | Saturating) -> None:
        self._normalizer = normalizer
        self._function = function

    def fit(self, values: Tensor) -> Moments | None:
        """Moments of the step, unless the normaliser has none."""
        return self._normalizer.fit(values)

    def running(self) -> Running | None:
        """The normaliser's."""
        return self._normalizer.running()

    def terms(self, values: Tensor, figures: Moments | None, tau: float, *, complete: bool) -> Tensor:
        """u_i = f(z_i, τ) with z the normalised ``values``; all alike where earlier scores tell no spread."""
        if not complete and figures is not None and not figures.is_spread:
            return torch.ones_like(values, dtype=torch.float64)
        return self._function(self._normalizer.apply(values, figures), tau, complete=complete)

    def describe(self, figures: Moments | None) -> dict[str, float]:
        """``normalizer_mean`` and ``normalizer_std``, in the unit in which the normaliser takes them."""
        return {} if figures is None else {"normalizer_mean": figures.mean, "normalizer_std": figures.std}


NORMALIZERS: dict[NormalizerKind, Callable[[], Normalizer]] = {
    "zscore": ZScore,
    "log_zscore": LogZScore,
    "rank": Rank,
}


def build_weighting(config: ReweightingConfig) -> Weighting:
    """What the validated ``config`` asks for."""
    if config.signal == "uniform":
        return Uniform()
    if config.weighting_kind == "clip":
        return Clip(config.weighting.quantile)
    function = Softmax() if config.weighting_kind == "softmax" else Saturating(config.weighting.threshold)
    return Tempered(NORMALIZERS[config.normalizer](), function)
