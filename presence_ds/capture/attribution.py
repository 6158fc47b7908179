"""A trial run that finds modules whose rows do not belong to single samples, before they spoil the scores silently.

Shapes alone do not tell: a layer that is given [T, B, C], or a selection of tokens of all samples, can have a first
dimension that divides by the batch size. So the trial changes one sample and sees whose rows follow.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.errors import AttributionError

SAMPLES, POSITIONS, CHANGED = 3, 7, 1  # sizes that no layout mistakes for each other


@torch.no_grad()
def check_attribution(
    forward: Callable[..., Any], names: dict[nn.Module, str], vocabulary: int, device: torch.device
) -> None:
    """Run ``forward(input_ids=...)`` twice, in evaluation mode, with one of three samples changed in between.

    Args:
        forward: runs the model on [3, 7] int64 token ids.
        names: path of every instrumented module.
        vocabulary: token ids are drawn below this.
        device: where the model computes.

    Raises:
        AttributionError: an instrumented module's input does not keep the samples in its first dimension.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (SAMPLES, POSITIONS), generator=generator)
    changed = ids.clone()
    changed[CHANGED] = (ids[CHANGED] + 1) % vocabulary
    inputs = []
    for trial in (ids, changed):
        with _inputs_of(names) as seen:
            forward(input_ids=trial.to(device))
        inputs.append(seen)
    for (module, before), (other, after) in zip(*inputs, strict=False):
        if before.dim() > 1 and before.shape[0] == 1:
            continue  # one row for every sample, such as position ids: the rules repeat it
        # an expert that only some tokens reach may be called in one run and not in the other
        if module is not other or not _is_by_sample(before, after):
            raise AttributionError(
                f"module {names[module]} ({type(module).__name__}) was given an input of shape {list(before.shape)} "
                f"for a batch of {SAMPLES} x {POSITIONS} tokens in which rows do not belong to single samples: its "
                f"gradient cannot be attributed to samples, and strategy one_pass cannot train it; freeze the module "
                f"(requires_grad=False) or use a model whose modules keep the samples in the first dimension"
            )


def _is_by_sample(before: Tensor, after: Tensor) -> bool:
    """Whether both divide into samples and only the changed one differs."""
    if before.shape != after.shape or before.dim() == 0 or before.shape[0] % SAMPLES:
        return False
    rows = [tensor.reshape(SAMPLES, -1) for tensor in (before, after)]
    others = [index for index in range(SAMPLES) if index != CHANGED]
    before, after = (row[others].double().nan_to_num() for row in rows)
    scale = before.abs().amax().clamp(min=1e-30)
    return bool(((before - after).abs() <= 1e-3 * scale).all())  # room for kernels that round by the batch


@contextmanager
def _inputs_of(names: dict[nn.Module, str]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """The first tensor given to every call of an instrumented module inside, in order."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensor = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        seen.append((module, tensor.detach().clone()))

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
