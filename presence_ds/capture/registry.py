"""Which layer rule runs in place of which module's forward.

A layer rule computes what the module computes, but its backward returns only the input gradient and leaves the terms of
the parameters' per-sample gradients in the capture. One file per rule in ``presence_ds/capture/rules``.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

LayerRule = Callable[..., Any]  # (module, capture, *inputs) -> outputs

_BY_FORWARD: dict[Callable[..., Any], LayerRule] = {}
_BY_PREDICATE: list[tuple[Callable[[nn.Module], bool], LayerRule]] = []
_BY_METHOD: dict[tuple[str, str], LayerRule] = {}


def register(*module_types: type[nn.Module]) -> Callable[[LayerRule], LayerRule]:
    """Use the decorated rule for modules whose class has the very ``forward`` of one of ``module_types``.

    A subclass with a forward of its own computes something else, so it does not inherit the rule.
    """

    def decorate(rule: LayerRule) -> LayerRule:
        for module_type in module_types:
            _BY_FORWARD[module_type.forward] = rule
        return rule

    return decorate


def register_where(predicate: Callable[[nn.Module], bool]) -> Callable[[LayerRule], LayerRule]:
    """Use the decorated rule for modules that satisfy ``predicate`` and have no rule by type."""

    def decorate(rule: LayerRule) -> LayerRule:
        _BY_PREDICATE.append((predicate, rule))
        return rule

    return decorate


def register_method(method: str, holder: str) -> Callable[[LayerRule], LayerRule]:
    """Use the decorated rule in place of ``method`` of modules that have it, for the parameters of a child.

    For parameters that a forward alone cannot attribute: in ``method`` the parent calls its child, the embedding
    ``holder``, with an input of no sample dimension.
    """

    def decorate(rule: LayerRule) -> LayerRule:
        _BY_METHOD[method, holder] = rule
        return rule

    return decorate


def find_method_rule(module: nn.Module) -> tuple[str, nn.Embedding, LayerRule] | None:
    """Method of ``module`` to replace, child whose parameters that attributes, and rule; None if there is none."""
    for (method, name), rule in _BY_METHOD.items():
        holder = getattr(module, name, None)
        if hasattr(type(module), method) and isinstance(holder, nn.Embedding):
            return method, holder, rule
    return None


def find_rule(module: nn.Module) -> LayerRule | None:
    """The rule for ``module``, or None if only the general rule can serve.

    One whose forward is set on the instance computes something else than its class says, as a subclass with a forward
    of its own does.
    """
    rule = None if "forward" in module.__dict__ else _BY_FORWARD.get(type(module).forward)
    if rule is not None:
        return rule
    return next((rule for predicate, rule in _BY_PREDICATE if predicate(module)), None)
