"""The recipe's settings of the optimizer, which loading a checkpoint replaces by those it was written with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from presence_ds.engine.zero import restore_clipping

OF_THE_RUN = ("params", "lr", "step")  # fields of a parameter group that move during a run


@contextmanager
def settings_of_the_recipe(engine: Any) -> Iterator[None]:
    """Inside, ``engine.load_checkpoint`` is called; afterwards the recipe's settings are in force again.

    These are the fields of every parameter group, the learning rate that the schedule has for the next step, and the
    gradient clipping. Where nothing has changed they are the checkpoint's, bit for bit.
    """
    optimizer, scheduler = engine.basic_optimizer, engine.lr_scheduler
    groups = [
        {name: value for name, value in group.items() if name not in OF_THE_RUN} for group in optimizer.param_groups
    ]
    rates = list(scheduler.base_lrs)
    yield
    scheduler.base_lrs = rates
    for group, own, rate, factor in zip(optimizer.param_groups, groups, rates, scheduler.lr_lambdas, strict=True):
        group.update(own)
        group["lr"] = rate * factor(scheduler.last_epoch)
    fused = any(group.get("fused") for group in groups)
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), torch.Tensor):  # torch's fused kernel takes it from the device, and no other
            state["step"] = state["step"].to(parameter.device if fused else "cpu")
    restore_clipping(engine)
