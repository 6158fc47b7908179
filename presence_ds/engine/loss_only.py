"""Signal ``loss``: weights from the losses alone, by a forward without gradients or by one with a backward to come."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.engine.weighted_pass import Objective
from presence_ds.engine.zero import gathers_parameters


def losses_for_backward(
    objective: Objective,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    batch: dict[str, Any],
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Per-sample losses of a micro-batch, and the same to differentiate: [B] each; and the model's own terms, if any.

    They differ only if a sample is not finite: then the forward runs again with such samples replaced. Under ZeRO-3,
    which gathers parameters on all ranks at once, it does so on all ranks if it has to on one.
    """
    losses, terms = objective(forward, args, batch)
    finite = losses.detach().isfinite()
    anywhere = (~finite).any().float()
    if gathers_parameters(objective.model):
        dist.all_reduce(anywhere, op=dist.ReduceOp.MAX, group=group)
    if not anywhere.item():
        return losses.detach(), losses, terms
    return losses.detach(), *objective(forward, args, batch, finite.cpu())


@torch.no_grad()
def losses_alone(
    objective: Objective, forward: Callable[..., Any], args: tuple[Any, ...], batch: dict[str, Any]
) -> Tensor:
    """Per-sample losses of a micro-batch without anything to differentiate, [B]."""
    return objective(forward, args, batch)[0]
