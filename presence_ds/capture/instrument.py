"""Which modules of a model are instrumented, and the switch that runs the layer rules in place of their forwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import LayerRule, find_method_rule, find_rule
from presence_ds.capture.rules import general_rule
from presence_ds.capture.rules.general import warn_if_large
from presence_ds.capture.unattributable import reason_against


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
        self.rules: dict[nn.Module, LayerRule] = {}
        self.names: dict[nn.Module, str] = {}
        self.unattributable: dict[nn.Module, str] = {}
        self._model = model
        self._methods: dict[nn.Module, str] = {}  # what the rule replaces, if not the forward
        self._holders: dict[nn.Module, nn.Module] = {}  # whose parameters such a rule answers for
        self._left_out: set[Tensor] = set()
        for name, module in model.named_modules():  # parents come before their children
            method_rule = find_method_rule(module)
            if method_rule is not None:
                method, holder, rule = method_rule
                if any(parameter.requires_grad for parameter in holder.parameters()):
                    self._methods[module], self._holders[module] = method, holder
                    self._add(name, module, rule)
            own = {n: p for n, p in module.named_parameters(recurse=False) if p.requires_grad}
            if not own or module in self._holders.values():
                continue
            found = find_rule(module)
            reason = reason_against(module, name, own, found is not None)
            if reason is not None:
                self.unattributable[module] = reason
                continue
            self._add(name, module, found or general_rule)
            if found is None:
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
        self.rules.pop(module, None)
        self.names.pop(module, None)
        self._methods.pop(module, None)
        for holder in (module, self._holders.get(module, module)):
            self._left_out.update(p for p in holder.parameters(recurse=False) if p.requires_grad)

    @contextmanager
    def recording(self, capture: Capture) -> Iterator[None]:
        """Inside, calls of instrumented modules run their layer rules and leave their terms in ``capture``."""
        capture.forwards = {module: module.forward for module in self.rules}
        replaced = [(module, self._methods.get(module, "forward"), rule) for module, rule in self.rules.items()]
        set_on_the_instance = [module.__dict__.get(method) for module, method, _ in replaced]
        for module, method, rule in replaced:
            module.__dict__[method] = partial(rule, module, capture)
        try:
            yield
        finally:
            for (module, method, _), before in zip(replaced, set_on_the_instance, strict=True):
                del module.__dict__[method]
                if before is not None:
                    module.__dict__[method] = before

    def _add(self, name: str, module: nn.Module, rule: LayerRule) -> None:
        self.rules[module], self.names[module] = rule, name
