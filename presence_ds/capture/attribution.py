"""What is attributable to samples: told by the module alone, by a trial run, and by the graph of a loss.

Whatever is found is left to the caller, with a sentence that names the module: to leave it out, or to refuse it.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from presence_ds.capture.capture import full_shape

LARGE = 10**6  # parameters of a module, above which the loop of the general rule and its gradients are felt
SAMPLES, POSITIONS, DECODER_POSITIONS, CHANGED = 3, 7, 5, 1  # sizes that no layout mistakes for each other

_Seen = dict[nn.Module, list[tuple[str, Tensor]]]


def trained_parameters(module: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters of ``module`` by name, without those of its children."""
    return {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}


def reason_against(module: nn.Module, name: str, has_rule: bool) -> str | None:
    """Why the parameters of ``module`` cannot be attributed to samples; None if a layer rule can do it.

    Args:
        module: holds trainable parameters.
        name: its path in the model.
        has_rule: whether a rule is written for its kind.
    """
    who, own = _who(module, name), trained_parameters(module)
    if "forward" in module.__dict__ and not has_rule:
        return (
            f"{who} has a forward set on the instance, which the layer rules would pass over: define it in the "
            f"module's class"
        )
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq or module.sparse):
        return f"{who} sets max_norm, scale_grad_by_freq or sparse, which per-sample gradients do not have"
    if isinstance(module, nn.RNNBase):  # its kernel reads a list of its own, past the attributes a rule can replace
        return f"{who} is recurrent, for which no layer rule is written: its gradient cannot be attributed to samples"
    if has_rule:
        return None
    stacks = [key for key, value in own.items() if sum(size > 1 for size in full_shape(value)) > 2]
    if stacks and not isinstance(module, _ConvNd):
        return (
            f"{who} holds stacks of matrices ({', '.join(stacks)}), such as the experts of a mixture: their gradient "
            f"cannot be attributed to samples at the cost of a layer"
        )
    if any(module.children()) or isinstance(module, nn.ParameterList | nn.ParameterDict):
        return (
            f"{who} uses its parameters {', '.join(own)} outside the call of a leaf module: their gradient cannot be "
            f"attributed to samples"
        )
    return None


def warn_if_large(module: nn.Module, name: str) -> None:
    """Say on rank 0 that ``module``, of path ``name``, takes the general rule, where that is felt; called once each."""
    own = {key: full_shape(parameter).numel() for key, parameter in trained_parameters(module).items()}
    size = sum(own.values())
    if size > LARGE and (not dist.is_initialized() or dist.get_rank() == 0):
        warnings.warn(
            f"{_who(module, name)} has no layer rule for its parameters {', '.join(own)}, {size:,} numbers: it is run "
            f"again sample by sample, and every sample's gradient of that size is kept; write a rule "
            f"(presence_ds.capture.register), or freeze it",
            stacklevel=2,
        )


@torch.no_grad()
def check_attribution(
    forward: Callable[..., Any],
    names: Mapping[nn.Module, str],
    vocabulary: int,
    device: torch.device,
    *,
    encoder_decoder: bool = False,
) -> dict[nn.Module, str]:
    """Find modules whose rows do not belong to single samples, before they spoil the scores silently.

    Shapes alone do not tell: a layer that is given [T, B, C], or a selection of tokens of all samples, can have a first
    dimension that divides by the batch size. So ``forward(input_ids=...)`` is run twice with one of three samples
    changed in between, to see whose rows follow.

    Args:
        forward: runs the model on [3, 7] int64 token ids, in evaluation mode: nothing but the ids may change.
        names: path of every instrumented module.
        vocabulary: token ids are drawn below this.
        device: where the model computes.
        encoder_decoder: whether to give ``decoder_input_ids`` [3, 5] too.

    Returns:
        Every module that was given, or returned, a tensor that does not keep the samples in its first dimension, and a
        sentence that says so. Of the modules that were not called those are in it whose like is, by the name but for
        numbers: experts that no token of the trial reaches.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = {"input_ids": POSITIONS} | ({"decoder_input_ids": DECODER_POSITIONS} if encoder_decoder else {})
    ids = {name: torch.randint(vocabulary, (SAMPLES, size), generator=generator) for name, size in lengths.items()}
    step = (torch.arange(SAMPLES) == CHANGED).unsqueeze(1).long()
    seen: list[_Seen] = []
    for change in (0, step):
        with _calls_of(names) as found:
            forward(**{name: ((value + change) % vocabulary).to(device) for name, value in ids.items()})
        seen.append(found)
    kinds = {module: re.sub(r"\d+", "0", name) for module, name in names.items()}
    reasons, at_fault_by_kind = {}, {}
    for module, name in names.items():
        at_fault = _at_fault(module, *(calls.get(module, []) for calls in seen))
        if at_fault is not None:
            what, tensor = at_fault
            reasons[module] = (
                f"{_who(module, name)} {what} of shape {list(tensor.shape)} for a batch of {SAMPLES} x {POSITIONS} "
                f"tokens in which rows do not belong to single samples: its gradient cannot be attributed to samples"
            )
            at_fault_by_kind[kinds[module]] = name
    for module, name in names.items():
        like = at_fault_by_kind.get(kinds[module])
        if like is not None and not any(module in calls for calls in seen):
            reasons[module] = (
                f"{_who(module, name)} is called for some tokens only, as {like} is, with rows that do not belong to "
                f"single samples: its gradient cannot be attributed to samples"
            )
    return reasons


def stray_parameters(output: Tensor, model: nn.Module) -> list[str]:
    """Names of the trainable parameters that are leaves of the autograd graph of ``output``, in the model's order.

    Instrumented calls keep their parameters out of the graph, so a parameter that is found there reaches the loss in
    another way, and one_pass would silently lose that part of its gradient. What re-entrant activation checkpointing
    hides from the graph is not seen.

    Args:
        output: what the instrumented forward returned.
        model: gives the names; a tied parameter has the first of its names.
    """
    leaves, seen, pending = set(), set(), [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaves.add(getattr(node, "variable", None))
        pending.extend(next_node for next_node, _ in node.next_functions)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter in leaves]


def _who(module: nn.Module, name: str) -> str:
    return f"module {name or 'the model itself'} ({type(module).__name__})"


def _at_fault(
    module: nn.Module, calls: list[tuple[str, Tensor]], repeated: list[tuple[str, Tensor]]
) -> tuple[str, Tensor] | None:
    """The first tensor of two runs that does not keep the samples apart, and what it is."""
    if len(calls) != len(repeated):  # an expert that only some tokens reach may be called in one run alone
        return [*calls, *repeated][0]
    pairs = zip(calls, repeated, strict=True)
    return next((call for call, (_, after) in pairs if not _is_by_sample(module, call[1], after)), None)


def _is_by_sample(module: nn.Module, before: Tensor, after: Tensor) -> bool:
    """Whether both divide into samples and only the changed one differs."""
    if isinstance(module, nn.Embedding) and before.dim() > 1 and before.shape[0] == 1:
        return True  # one row of position ids for every sample: the rule repeats it
    if before.shape != after.shape or before.dim() == 0 or before.shape[0] % SAMPLES:
        return False
    rows = [tensor.reshape(SAMPLES, -1) for tensor in (before, after)]
    others = [index for index in range(SAMPLES) if index != CHANGED]
    before, after = (row[others].double().nan_to_num() for row in rows)
    scale = before.abs().amax().clamp(min=1e-30)
    return bool(((before - after).abs() <= 1e-3 * scale).all())  # room for kernels that round by the batch


@contextmanager
def _calls_of(modules: Iterable[nn.Module]) -> Iterator[_Seen]:
    """The first tensor given to and the first returned by every call inside of one of ``modules``, in order."""
    seen: _Seen = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        for what, values in (("was given an input", (*args, *kwargs.values())), ("returned an output", outputs)):
            tensor = next((value for value in values if isinstance(value, Tensor)), None)
            if tensor is not None:
                seen.setdefault(module, []).append((what, tensor.detach().clone()))

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
