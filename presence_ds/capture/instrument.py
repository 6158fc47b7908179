"""Which modules of a model are instrumented, and the switch that runs the layer rules in place of their forwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

from presence_ds.capture.capture import Capture
from presence_ds.capture.registry import LayerRule, find_rule
from presence_ds.capture.rules import general_rule
from presence_ds.errors import AttributionError


class Instrumentation:
    """The layer rules of a model's parameter-holding modules.

    The model is the plain model except inside `recording`.

    Attributes:
        rules: rule of every instrumented module.
        names: path of every instrumented module in the model.
    """

    def __init__(self, model: nn.Module) -> None:
        """Choose a rule for every module that holds trainable parameters.

        Raises:
            AttributionError: a module holds parameters beside child modules and no rule is written for its type, or
                its forward was replaced on the instance.
        """
        self.rules: dict[nn.Module, LayerRule] = {}
        self.names: dict[nn.Module, str] = {}
        for name, module in model.named_modules():
            own = {n: p for n, p in module.named_parameters(recurse=False) if p.requires_grad}
            if not own:
                continue
            if "forward" in module.__dict__:
                raise AttributionError(
                    f"module {name} ({type(module).__name__}) has a forward set on the instance, which the layer rules "
                    f"would pass over: define it in the module's class"
                )
            rule = find_rule(module)
            if rule is None and any(module.children()):
                raise AttributionError(
                    f"module {name or 'the model itself'} ({type(module).__name__}) uses its parameters "
                    f"{', '.join(own)} outside the call of a leaf module: their gradient cannot be attributed to "
                    f"samples, and strategy one_pass cannot train them; move them into a leaf module or freeze them"
                )
            self.rules[module] = rule or general_rule
            self.names[module] = name

    @contextmanager
    def recording(self, capture: Capture) -> Iterator[None]:
        """Inside, calls of instrumented modules run their layer rules and leave their terms in ``capture``."""
        for module, rule in self.rules.items():
            module.__dict__["forward"] = partial(rule, module, capture)
        try:
            yield
        finally:
            for module in self.rules:
                del module.__dict__["forward"]
