"""Any other leaf module: its own forward, repeated sample by sample in the backward pass.

Costs the module's forward once more and keeps its per-sample gradients, B times its parameters; meant for small modules
(a learned scale, a gate, a convolution). The module must treat samples independently and draw no random numbers.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten  # private, and what torch's own modes use

from presence_ds.capture.capture import Capture, full_shape

LARGE = 10**6  # parameters of a module, above which the loop and its gradients are felt


class _General(Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, module: nn.Module, capture: Capture, tree: TreeSpec, *inputs: Any) -> Any:
        ctx.module, ctx.capture, ctx.tree = module, capture, tree
        ctx.others = [None if isinstance(value, Tensor) else value for value in inputs]
        ctx.save_for_backward(*[value if isinstance(value, Tensor) else None for value in inputs])
        args, kwargs = tree_unflatten(inputs, tree)
        output = capture.forwards[module](*args, **kwargs)
        outputs = output if isinstance(output, tuple) else (output,)
        for value in outputs:
            if not isinstance(value, Tensor):
                raise TypeError(f"{type(module).__name__} returned a {type(value).__name__}")
            capture.check_samples_first(module, value, "output")
        return output

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[Any, ...]:
        module, capture, batch_size = ctx.module, ctx.capture, ctx.capture.batch_size
        own = dict(module.named_parameters(recurse=False))
        held = {name: parameter.detach() for name, parameter in own.items()}  # first, as in the rule of linear layers
        inputs = [other if saved is None else saved for saved, other in zip(ctx.saved_tensors, ctx.others, strict=True)]
        parameters = {name: parameter for name, parameter in own.items() if parameter.requires_grad}
        wanted = [index for index in range(len(inputs)) if ctx.needs_input_grad[4 + index]]
        grad_inputs: list[Tensor | None] = [None] * len(inputs)
        for index in wanted:
            grad_inputs[index] = torch.zeros_like(inputs[index])
        grads = {name: [] for name in parameters}  # type: dict[str, list[Tensor]]
        for sample in range(batch_size):
            rows = [_rows(value, sample, batch_size) for value in inputs]
            leaves = {name: held[name].detach().requires_grad_() for name in parameters}
            for index in wanted:
                rows[index] = rows[index].detach().requires_grad_()
            args, kwargs = tree_unflatten(rows, ctx.tree)
            with torch.enable_grad(), parameters_as(module, held | leaves):
                output = capture.forwards[module](*args, **kwargs)
            outputs = output if isinstance(output, tuple) else (output,)
            differentiable = [
                (value, _rows(delta, sample, batch_size))
                for value, delta in zip(outputs, deltas, strict=True)
                if value.requires_grad
            ]
            sources = [*leaves.values(), *(rows[index] for index in wanted)]
            found = torch.autograd.grad(
                [value for value, _ in differentiable], sources, [delta for _, delta in differentiable],
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            for name, grad in zip(parameters, found, strict=False):
                grads[name].append(grad)
            for index, grad in zip(wanted, found[len(parameters) :], strict=True):
                _rows(grad_inputs[index], sample, batch_size).add_(grad)
        for name, parameter in parameters.items():
            capture.add_dense(parameter, torch.stack(grads[name]))
        return None, None, None, None, *grad_inputs


@contextmanager
def parameters_as(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, ``module`` has ``values`` for its parameters: instance attributes hide those of the same names."""
    module.__dict__.update(values)
    try:
        yield
    finally:
        for name in values:
            del module.__dict__[name]


def warn_if_large(module: nn.Module, name: str) -> None:
    """Say on rank 0 that ``module``, of path ``name``, takes the general rule, where that is felt; called once each."""
    own = {key: full_shape(p) for key, p in module.named_parameters(recurse=False) if p.requires_grad}
    size = sum(shape.numel() for shape in own.values())
    if size > LARGE and (not dist.is_initialized() or dist.get_rank() == 0):
        warnings.warn(
            f"module {name or 'the model itself'} ({type(module).__name__}) has no layer rule for its parameters "
            f"{', '.join(own)}, {size:,} numbers: it is run again sample by sample, and every sample's gradient of "
            f"that size is kept; write a rule (presence_ds.capture.register), or freeze it",
            stacklevel=2,
        )


def _rows(value: Any, sample: int, batch_size: int) -> Any:
    """The rows of one sample; inputs that are no tensors or are shared by all samples pass whole."""
    if not isinstance(value, Tensor) or value.dim() == 0 or value.shape[0] % batch_size:
        return value
    size = value.shape[0] // batch_size
    return value[sample * size : (sample + 1) * size]


def general_rule(module: nn.Module, capture: Capture, *args: Any, **kwargs: Any) -> Any:
    """Tensors among the inputs whose first dimension divides into B samples are split; outputs must divide so."""
    capture.expect(*module.parameters(recurse=False))
    inputs, tree = tree_flatten((args, kwargs))  # also those in tuples and dictionaries: autograd sees no others
    return _General.apply(capture.anchor, module, capture, tree, *inputs)
