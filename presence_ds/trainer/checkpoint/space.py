"""Whether a checkpoint is likely to fit on the disk, asked before it is begun."""

import shutil
from pathlib import Path

from torch import nn

from presence_ds.capture import full_shape
from presence_ds.trainer.checkpoint.manifest import complete_checkpoints, read_manifest

GIB = 2**30
OPTIMIZER_BYTES = 12  # for each parameter: float32 weights and the two moments of Adam


def lack_of_space(folder: Path, model: nn.Module) -> str | None:
    """None if the file system of ``folder`` has room for another checkpoint, otherwise how much is missing.

    A checkpoint is taken to be as large as the newest one, or, before there is one, as weights and Adam's state.
    """
    existing = complete_checkpoints(folder)
    needed = read_manifest(existing[-1]).bytes if existing else estimate_bytes(model)
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    return f"{folder} has {free / GIB:.3g} GiB free and a checkpoint takes about {needed / GIB:.3g} GiB"


def estimate_bytes(model: nn.Module) -> int:
    """Size of a checkpoint of ``model``, partitioned or not, trained with Adam."""
    return sum(
        full_shape(parameter).numel() * (parameter.element_size() + OPTIMIZER_BYTES) for parameter in model.parameters()
    )
