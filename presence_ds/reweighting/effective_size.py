"""Effective sample size, and the temperature that keeps a floor under it."""

from collections.abc import Callable

from torch import Tensor

BISECTIONS = 50


def effective_sample_size(terms: Tensor) -> float:
    """1 / Σ w² of the weights w = u / Σ u, from unnormalised weights u ([n] float64, some positive)."""
    return (terms.sum().square() / terms.square().sum()).item()


def tau_with_floor(terms: Callable[[float], Tensor], tau: float, floor: float) -> float:
    """``tau``, or the largest temperature of the same sign that keeps the effective sample size at ``floor``.

    The effective sample size falls steadily as |τ| grows (softmax and saturating weights alike), from the number of
    samples at τ = 0, so bisection finds it: always with the same number of halvings, and on every rank alike.

    Args:
        terms: unnormalised weights at a temperature.
        tau: the scheduled temperature.
        floor: below the number of samples.
    """
    if effective_sample_size(terms(tau)) >= floor:
        return tau
    kept, broken = 0.0, tau
    for _ in range(BISECTIONS):
        middle = (kept + broken) / 2
        if effective_sample_size(terms(middle)) >= floor:
            kept = middle
        else:
            broken = middle
    return kept
