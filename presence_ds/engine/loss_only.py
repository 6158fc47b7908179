"""Signal ``loss`` in one pass: an ordinary forward and backward, with weights from the losses in between."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from presence_ds.engine.weighted_pass import sample_losses
from presence_ds.engine.zero import gathers_parameters
from presence_ds.influence import SampleLoss


def losses_for_backward(
    model: nn.Module,
    loss: SampleLoss,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    batch: dict[str, Any],
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor]:
    """Per-sample losses of a micro-batch, and the same to differentiate: [B] each.

    They differ only if a sample is not finite: then the forward runs again with such samples replaced. Under ZeRO-3,
    which gathers parameters on all ranks at once, it does so on all ranks if it has to on one.
    """
    losses = sample_losses(model, loss, forward, args, batch)
    finite = losses.detach().isfinite()
    anywhere = (~finite).any().float()
    if gathers_parameters(model):
        dist.all_reduce(anywhere, op=dist.ReduceOp.MAX, group=group)
    if not anywhere.item():
        return losses.detach(), losses
    return losses.detach(), sample_losses(model, loss, forward, args, batch, finite.cpu())


@torch.no_grad()
def losses_alone(
    model: nn.Module, loss: SampleLoss, forward: Callable[..., Any], args: tuple[Any, ...], batch: dict[str, Any]
) -> Tensor:
    """Per-sample losses of a micro-batch without anything to differentiate, [B]."""
    return sample_losses(model, loss, forward, args, batch)
