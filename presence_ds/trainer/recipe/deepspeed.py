"""The DeepSpeed configuration of a run: the JSON file, and the values the recipe states for both."""

import copy
import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from presence_ds.engine.settings import read_settings
from presence_ds.errors import ConfigError
from presence_ds.trainer.recipe.recipe import TrainingConfig

LARGEST_STAGE = 3


def read_deepspeed_json(path: Path) -> dict[str, Any]:
    """The parsed JSON file, its ZeRO section checked.

    Raises:
        ConfigError: no such file, no JSON object, or a setting this project does not work with.
    """
    from deepspeed.runtime import constants
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    section = read_settings(path, "deepspeed")
    found = f"deepspeed: {path.name}"
    own = {*REFUSED_SECTIONS, "sequence_parallel_size"}  # for which DeepSpeed has no constant
    known = OBJECTS | own | {value for value in vars(constants).values() if isinstance(value, str)}
    for name, value in section.items():
        if name in OBJECTS and not isinstance(value, dict):
            raise ConfigError(f"{found} {name} is {json.dumps(value)}: it must be an object")
        meant = get_close_matches(name, known, n=1, cutoff=0.85)
        if name not in known and meant:
            raise ConfigError(f"{found} has {name}, which DeepSpeed would pass over: did you mean {meant[0]}?")
    for name in ("bf16", "fp16"):
        enabled = section.get(name, {}).get("enabled", False)
        if not isinstance(enabled, bool) and enabled != "auto":
            raise ConfigError(f"{found} {name}.enabled is {json.dumps(enabled)}: it must be true or false")
    section.setdefault("zero_optimization", {}).setdefault("stage", 0)
    for name, instead in REFUSED_SECTIONS.items():
        if name in section:
            raise ConfigError(f'{found} has a section "{name}": {instead}')
    for monitor in ("wandb", "tensorboard", "csv_monitor", "comet"):
        if section.get(monitor, {}).get("enabled", False):
            raise ConfigError(f'{found} enables "{monitor}": metrics are the recipe\'s (wandb, tensorboard, trackio)')
    stage = section["zero_optimization"]["stage"]
    if isinstance(stage, bool) or not isinstance(stage, int) or stage not in range(LARGEST_STAGE + 1):
        raise ConfigError(f"{found} zero_optimization.stage is {json.dumps(stage)}: it must be 0, 1, 2 or 3")
    try:
        DeepSpeedZeroConfig(**section["zero_optimization"])
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{found} zero_optimization.{name}: {first['msg']}") from None
    return section


def merge_deepspeed_config(
    section: dict[str, Any], training: TrainingConfig, *, world_size: int, precision: str, untested_optimizer: bool
) -> dict[str, Any]:
    """The dict for ``presence_ds.initialize``: ``section`` with the values that the recipe states for both.

    Args:
        precision: what the model computes in: bf16, fp16 or fp32.
        untested_optimizer: The optimizer is not among those DeepSpeed lists as tested with ZeRO (SGD).

    Raises:
        ConfigError: the JSON file states one of them differently (absent and "auto" are fine).
    """
    merged = copy.deepcopy(section)
    samples, accumulation_steps = training.micro_batch_size, training.accumulation_steps(world_size)
    in_all = "training.micro_batch_size x gradient_accumulation_steps x ranks"
    clipping = training.gradient_clipping or 0.0  # which leaves gradients alone; DeepSpeed's own default is 1
    shared: dict[tuple[str, ...], tuple[str, int | float | bool]] = {
        ("train_batch_size",): (in_all, samples * accumulation_steps * world_size),
        ("train_micro_batch_size_per_gpu",): ("training.micro_batch_size", samples),
        ("gradient_accumulation_steps",): ("training.gradient_accumulation_steps", accumulation_steps),
        ("gradient_clipping",): ("training.gradient_clipping", clipping),
        ("bf16", "enabled"): ("training.precision as bf16", precision == "bf16"),
        ("fp16", "enabled"): ("training.precision as fp16", precision == "fp16"),
    }
    for keys, (field, value) in shared.items():
        parent = merged
        for key in keys[:-1]:
            parent = parent.setdefault(key, {})
        stated = parent.get(keys[-1], "auto")
        if stated not in ("auto", value):
            raise ConfigError(
                f"deepspeed: {'.'.join(keys)} is {json.dumps(stated)} in the JSON file, but {field} is "
                f'{json.dumps(value)}: leave it out of the JSON file, or write "auto"'
            )
        parent[keys[-1]] = value
    if untested_optimizer:
        merged["zero_allow_untested_optimizer"] = True
        merged["zero_force_ds_cpu_optimizer"] = False
    return merged


def is_offloaded(zero: dict[str, Any], what: str) -> bool:
    """Whether the section ``zero_optimization`` moves ``what``, optimizer or param, off the device."""
    return (zero.get(f"offload_{what}") or {}).get("device", "none") != "none"


OBJECTS = {  # sections of DeepSpeed's JSON that are objects
    "zero_optimization",
    "bf16",
    "fp16",
    "data_types",
    "torch_autocast",
    "activation_checkpointing",
    "hybrid_engine",
    "tensor_parallel",
    "flops_profiler",
    "comms_logger",
    "aio",
    "wandb",
    "tensorboard",
    "csv_monitor",
    "comet",
}
REFUSED_SECTIONS = {
    "optimizer": "the optimizer is the recipe's (optimizer)",
    "scheduler": "the learning-rate schedule is the recipe's (lr_schedule)",
    "presence": "the method is the recipe's (presence)",
}
