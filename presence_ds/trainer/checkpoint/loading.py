"""Loading DeepSpeed's part of a checkpoint: under the recipe's settings, and on another number of ranks.

On another number of ranks it goes through DeepSpeed's universal format. The conversion writes every parameter and its
moments whole, into a folder beside the checkpoints that is removed after the load. `load_settings` has to be in the
DeepSpeed configuration when the engine is made.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from presence_ds.engine.zero import restore_clipping
from presence_ds.errors import ConfigError
from presence_ds.trainer.checkpoint.manifest import Manifest

OF_THE_RUN = ("params", "lr", "step")  # fields of a parameter group that move during a run
ADAMS = ("Adam", "AdamW", "FusedAdam", "DeepSpeedCPUAdam")  # the converter knows their two moments and nothing else


def load_settings(deepspeed: dict[str, Any]) -> dict[str, Any]:
    """The DeepSpeed configuration with which an engine loads a universal checkpoint."""
    return {**deepspeed, "checkpoint": {**deepspeed.get("checkpoint", {}), "load_universal": True}}


def check_convertible(manifest: Manifest, source: Path) -> None:
    """Raise `ConfigError` if DeepSpeed cannot bring the checkpoint to another number of ranks."""
    what = None
    if manifest.setup["optimizer"] not in ADAMS:
        what = f"optimizer {manifest.setup['optimizer']}"
    elif manifest.setup["precision"] == "float16":
        what = "precision fp16"
    elif any(name.startswith("offloaded_tensors") for name in manifest.files):
        what = "optimizer state offloaded to NVMe"
    if what is not None:
        raise ConfigError(
            f"checkpoint.resume: {source} was written by {manifest.world_size} ranks, and with {what} it can only be "
            f"loaded on as many: start the run with {manifest.world_size}"
        )


def convert(source: Path, target: Path) -> None:
    """Write the checkpoint ``source`` in the universal format to ``target``; on one rank.

    Raises:
        ConfigError: DeepSpeed's converter failed.
    """
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--input_folder", str(source), "--output_folder", str(target)]
    finished = subprocess.run(
        [*command, "--num_extract_workers", "1", "--num_merge_workers", "1"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
    )
    if finished.returncode != 0:
        reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"{source} cannot be converted for another number of ranks: {reason}")


def load_universal(engine: Any, folder: Path) -> None:
    """`engine.load_checkpoint` of a converted checkpoint, and what DeepSpeed 0.19.8 gets wrong in it set right.

    With ZeRO-3 it gives every parameter group the settings of the first, which `settings_of_the_recipe` undoes, and all
    of them one tensor to count their steps in, which then counts once for each.
    """
    engine.load_checkpoint(str(folder.parent), tag=folder.name)
    for state in engine.basic_optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()


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
