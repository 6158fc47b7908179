"""Which modules of a model are instrumented, and the switch that runs the layer rules in place of their forwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from presence_ds.capture.attributes import attributes_as
from presence_ds.capture.attribution import reason_against, trained_parameters, warn_if_large
from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import find_rule
from presence_ds.capture.rule import Rule
from presence_ds.capture.rules import General


class Instrumentation:
    """The layer rules of a model's parameter-holding modules.

    The model is the plain model except inside `recording`.

    Attributes:
        rules: rule of every instrumented module.
        names: path of every instrumented module in the model.
        unattributable: every module with parameters that no rule can attribute to samples, and the reason. They have no
            rule; whoever does without their per-sample gradients calls `leave_out` on each.
    """

    def __init__(self, model: nn.Module) -> None:
        """Choose a rule for every module that holds trainable parameters."""
        self.rules: dict[nn.Module, type[Rule]] = {}
        self.names: dict[nn.Module, str] = {}
        self.unattributable: dict[nn.Module, str] = {}
        self._model = model
        self._left_out: set[Tensor] = set()
        answered_for: set[nn.Module] = set()  # by the rules of their parents, which come before them
        for name, module in model.named_modules():
            rule = find_rule(module)
            if rule is not None and rule.holder:
                child = module.get_submodule(rule.holder)
                if trained_parameters(child):
                    self.rules[module], self.names[module] = rule, name
                    answered_for.add(child)
                rule = None  # for its own parameters
            if module in answered_for or not trained_parameters(module):
                continue
            reason = reason_against(module, name, rule is not None)
            if reason is not None:
                self.unattributable[module] = reason
                continue
            self.rules[module], self.names[module] = rule or General, name
            if rule is None:
                warn_if_large(module, name)

    @property
    def left_out(self) -> list[str]:
        """Names of the trainable parameters of the modules that were left out, in the model's order."""
        return [name for name, parameter in self._model.named_parameters() if parameter in self._left_out]

    def leave_out(self, module: nn.Module) -> None:
        """Let ``module`` run as it is in `recording`; no term of its parameters is to be expected.

        Its parameters then are in the autograd graph like any other model's; set ``requires_grad`` to False while
        nothing is to be computed for them.
        """
        rule = self.rules.pop(module, Rule)
        self.names.pop(module, None)
        for holder in {module, module.get_submodule(rule.holder)}:
            self._left_out.update(trained_parameters(holder).values())

    @contextmanager
    def recording(self, capture: Capture) -> Iterator[None]:
        """Inside, calls of instrumented modules run their layer rules and leave their terms in ``capture``."""
        capture.forwards = {module: module.forward for module in self.rules}
        with ExitStack() as stack:
            for module, rule in self.rules.items():
                stack.enter_context(attributes_as(module, {rule.method: partial(_call, rule, module, capture)}))
            yield


def _call(rule: type[Rule], module: nn.Module, capture: Capture, *args: Any, **kwargs: Any) -> Any:
    return rule(module, capture)(*args, **kwargs)
