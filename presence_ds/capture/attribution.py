"""A trial run that finds modules whose rows do not belong to single samples, before they spoil the scores silently.

Shapes alone do not tell: a layer that is given [T, B, C], or a selection of tokens of all samples, can have a first
dimension that divides by the batch size. So the trial changes one sample and sees whose rows follow.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES, POSITIONS, DECODER_POSITIONS, CHANGED = 3, 7, 5, 1  # sizes that no layout mistakes for each other

_Seen = dict[nn.Module, list[tuple[str, Tensor]]]


@torch.no_grad()
def check_attribution(
    forward: Callable[..., Any],
    names: dict[nn.Module, str],
    vocabulary: int,
    device: torch.device,
    *,
    encoder_decoder: bool = False,
) -> dict[nn.Module, str]:
    """Run ``forward(input_ids=...)`` twice with one of three samples changed in between.

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
    changed = {name: value.clone() for name, value in ids.items()}
    for value in changed.values():
        value[CHANGED] = (value[CHANGED] + 1) % vocabulary
    seen: list[_Seen] = []
    for trial in (ids, changed):
        with _calls_of(names) as found:
            forward(**{name: value.to(device) for name, value in trial.items()})
        seen.append(found)
    reasons = {}
    for module in names:
        calls, repeated = seen[0].get(module, []), seen[1].get(module, [])
        # an expert that only some tokens reach may be called in one run and not in the other
        at_fault = None if len(calls) == len(repeated) else [*calls, *repeated][0]
        for (what, before), (_, after) in zip(calls, repeated, strict=False):
            if at_fault is None and not _is_by_sample(module, before, after):
                at_fault = what, before
        if at_fault is not None:
            reasons[module] = _reason(module, names[module], *at_fault)
    at_fault_by_kind = {_kind(names[module]): names[module] for module in reasons}
    for module, name in names.items():
        like = at_fault_by_kind.get(_kind(name))
        if like is not None and not any(module in calls for calls in seen):
            reasons[module] = (
                f"module {name} ({type(module).__name__}) is called for some tokens only, as {like} is, with rows that "
                f"do not belong to single samples: its gradient cannot be attributed to samples"
            )
    return reasons


def _kind(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _reason(module: nn.Module, name: str, what: str, tensor: Tensor) -> str:
    sizes = f"{SAMPLES} x {POSITIONS} tokens"
    return (
        f"module {name} ({type(module).__name__}) {what} of shape {list(tensor.shape)} for a batch of {sizes} in which "
        f"rows do not belong to single samples: its gradient cannot be attributed to samples"
    )


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
