"""A matrix in a module with a forward of its own: a scaled embedding, learned positions, a router of experts.

The module's own forward runs, and only the matrix product or the lookup in it goes to the rule of linear layers or of
embeddings. That holds if the forward uses its parameters in no other way, which is seen the first time it is called; if
it does, the general rule serves.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from presence_ds.capture.attributes import attributes_as
from presence_ds.capture.attribution import warn_if_large
from presence_ds.capture.capture import Capture, full_shape
from presence_ds.capture.registry import register_where
from presence_ds.capture.rule import Rule
from presence_ds.capture.rules.embedding import Embedding
from presence_ds.capture.rules.general import General
from presence_ds.capture.rules.linear import Linear

_TENSOR: Any = torch.Tensor
_LINEAR = torch._C._nn.linear  # F.linear, unless DeepSpeed has put a Function in its place, into which no mode sees
_TRANSPOSES = {_TENSOR.T.__get__, _TENSOR.mT.__get__, _TENSOR.t, torch.t}
_PRODUCTS = {_TENSOR.__matmul__, _TENSOR.matmul, torch.matmul}

_routable: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class _Routing(TorchFunctionMode):
    """Hands the uses of a module's matrix to their layer rules; without a capture it only looks on.

    Attributes:
        complete: whether no parameter of the module was used in another way.
    """

    def __init__(self, module: nn.Module, capture: Capture | None = None) -> None:
        super().__init__()
        self.complete = True
        self._module, self._capture = module, capture
        self._own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        self._transposed: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = self._rule(func, args, kwargs)
        if rule is not None and self._capture is not None:
            return rule(self._module, self._capture)(args[0])
        if rule is not None or not self._touches((*args, *kwargs.values())):
            return func(*args, **kwargs)
        with torch.enable_grad():  # whether the result depends on the parameter shows only so
            result = func(*args, **kwargs)
        if func in _TRANSPOSES:
            self._transposed.append(result)
        elif isinstance(result, Tensor) and result.requires_grad and not self._touches((result,)):
            self.complete = False
        return result

    def _rule(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> type[Rule] | None:
        """The layer rule that computes this very call, a use of the module's matrix."""
        module: Any = self._module
        if len(args) < 2:
            return None
        if func is F.embedding and args[1] is module.weight and isinstance(module, nn.Embedding):
            return Embedding if kwargs.get("padding_idx") == module.padding_idx else None
        is_linear = func is _LINEAR and args[1] is module.weight
        is_product = func in _PRODUCTS and any(args[1] is transposed for transposed in self._transposed)
        bias = kwargs.get("bias", (*args, None)[2])
        return Linear if (is_linear or is_product) and bias is getattr(module, "bias", None) else None

    def _touches(self, values: tuple[Any, ...]) -> bool:
        flat = [item for value in values for item in (value if isinstance(value, list | tuple) else (value,))]
        return any(item is other for item in flat for other in (*self._own, *self._transposed))


def _is_matrix_in_own_forward(module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False))
    if "forward" in module.__dict__:
        return False  # what it closes over, no mode sees
    if "weight" not in own or not own.keys() <= {"weight", "bias"} or any(module.children()):
        return False
    return len(full_shape(own["weight"])) == 2


@register_where(_is_matrix_in_own_forward)
class OwnForward(Rule):
    """What the matrix is multiplied by, or looked up by, must keep the samples in its first dimension."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module, capture = self.module, self.capture
        forward = capture.forwards[module]
        if module not in _routable:
            with torch.no_grad(), attributes_as(F, {"linear": _LINEAR}), _Routing(module) as routing:
                forward(*args, **kwargs)
            _routable[module] = routing.complete
            if not routing.complete:
                warn_if_large(module, capture.names[module])
        if not _routable[module]:
            return General(module, capture)(*args, **kwargs)
        with attributes_as(F, {"linear": _LINEAR}), _Routing(module, capture):
            return forward(*args, **kwargs)
