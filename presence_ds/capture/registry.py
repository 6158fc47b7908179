"""Which layer rule runs in place of which module's forward.

A layer rule computes what the module computes, but its backward returns only the input gradient and leaves the terms of
the parameters' per-sample gradients in the capture. One file per rule in ``presence_ds/capture/rules``.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from presence_ds.capture.rule import Rule

_R = TypeVar("_R", bound=type[Rule])

_RULES: list[tuple[Callable[[nn.Module], bool], type[Rule]]] = []  # the first that matches is taken


def register(*module_types: type[nn.Module]) -> Callable[[_R], _R]:
    """Use the decorated rule for modules whose class has the very ``forward`` of one of ``module_types``.

    One with a forward of its own, in a subclass or set on the instance, computes something else and does not inherit
    the rule. Such rules come before those of `register_where`, and later ones before earlier ones.
    """
    forwards = {module_type.forward for module_type in module_types}

    def matches(module: nn.Module) -> bool:
        return "forward" not in module.__dict__ and type(module).forward in forwards

    def decorate(rule: _R) -> _R:
        _RULES.insert(0, (matches, rule))
        return rule

    return decorate


def register_where(predicate: Callable[[nn.Module], bool]) -> Callable[[_R], _R]:
    """Use the decorated rule for modules that satisfy ``predicate`` and have no rule by their forward."""

    def decorate(rule: _R) -> _R:
        _RULES.append((predicate, rule))
        return rule

    return decorate


def find_rule(module: nn.Module) -> type[Rule] | None:
    """The rule for ``module``, or None if only the general rule can serve."""
    return next((rule for matches, rule in _RULES if matches(module)), None)
