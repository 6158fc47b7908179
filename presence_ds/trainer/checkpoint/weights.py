"""The weights in a DeepSpeed checkpoint, read without ranks, without a GPU and without running code in its pickles."""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

from presence_ds.engine.engine import MODEL_KEY
from presence_ds.errors import ConfigError

MODEL_FILES = "*_model_states.pt"
SHARDS = "*_optim_states.pt"


def _attribute(owner: Any, name: str) -> Any:
    """What stands for `getattr`, by which some releases of Python 3.11 pickle members of an enumeration."""
    if owner is not ZeroStageEnum or name not in ZeroStageEnum.__members__:
        raise UnpicklingError(f"Unsupported global: {owner}.{name}")
    return ZeroStageEnum[name]


IN_CHECKPOINTS: list[Any] = [  # of DeepSpeed, beside plain values
    DynamicLossScaler,
    LossScaler,
    ZeroStageEnum,
    fragment_address,
    (_attribute, "builtins.getattr"),
]


def read_weights(checkpoint: Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    """The weights that a checkpoint of any ZeRO stage holds, and what it says about its model.

    Args:
        checkpoint: the directory with DeepSpeed's files.

    Returns:
        By name in the model's state dict, tensors or, ZeRO-3, what becomes one by ``contiguous()``: the float32 master
        weights of stages 1 to 3; what the model computed with at stage 0 and of frozen parameters. And what
        `presence_ds.engine.engine.describe_model` found.

    Raises:
        ConfigError: a file is damaged, missing, or holds objects that no checkpoint of DeepSpeed's holds.
    """
    with _readable(checkpoint):
        states = _states(checkpoint)
        weights = dict(states["module"])
        if any(checkpoint.glob(SHARDS)):
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it tells its progress
                weights |= get_fp32_state_dict_from_zero_checkpoint(
                    str(checkpoint.parent), checkpoint.name, lazy_mode=True
                )
    return weights, states.get(MODEL_KEY, {})


def read_description(checkpoint: Path) -> dict[str, str]:
    """What `read_weights` returns about the model, without the weights.

    Raises:
        ConfigError: as `read_weights`.
    """
    with _readable(checkpoint):
        description: dict[str, str] = _states(checkpoint).get(MODEL_KEY, {})
    return description


def _states(checkpoint: Path) -> dict[str, Any]:
    """The first file with states of the model; its tensors are read when they are used."""
    file = sorted(checkpoint.glob(MODEL_FILES))[0]
    states: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return states


@contextmanager
def _readable(checkpoint: Path) -> Iterator[None]:
    """Inside, only plain values are read; raises `ConfigError` for a file that holds others or cannot be read."""
    try:
        with _plain_values_only():
            yield
    except (UnpicklingError, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        text = " ".join(str(error).split()).split("WeightsUnpickler error: ")[-1]  # torch's advice comes before it
        foreign = "unsupported global" in text.lower()
        what = "holds objects that no DeepSpeed checkpoint holds" if foreign else "is damaged or missing"
        raise ConfigError(f"{checkpoint}: a file {what}: {text[:300]}") from None


@contextmanager
def _plain_values_only() -> Iterator[None]:
    """Inside, every torch.load refuses pickles that would run code, also DeepSpeed's, which asks for all of pickle."""
    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(IN_CHECKPOINTS):
            yield
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before


FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
