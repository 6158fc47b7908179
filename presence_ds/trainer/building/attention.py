"""Which attention implementation a model can train with on this machine, found out before data is prepared."""

import copy

import torch
from transformers import PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from presence_ds.errors import ConfigError
from presence_ds.trainer.building.model import first_line, model_class
from presence_ds.trainer.building.model_config import ModelConfig


def check_attention(
    config: PretrainedConfig, model: ModelConfig, *, device: str | None, precision: str, field: str = "model"
) -> None:
    """Raise `ConfigError` if the model cannot train with ``model.attention``.

    Args:
        device: kind of device that computes, such as "cpu" or "cuda"; None: not this machine's, so that only the name
            is checked.
        precision: what the model computes in: bf16, fp16 or fp32.
    """
    name = model.attention
    if name is None:
        return
    found = f'{field}.attention is "{name}"'
    known = ["eager", *sorted(set(ALL_ATTENTION_FUNCTIONS.valid_keys()) - {"paged|eager"})]  # that one only generates
    if name not in known and "/" not in name:  # with a slash, a kernel on the Hugging Face hub
        raise ConfigError(f"{found}: it must be one of {', '.join(known)}, or null")
    if device is None:
        return
    if device == "cpu" and name not in ("eager", "sdpa"):
        raise ConfigError(f"{found}, which computes gradients on an accelerator only, and there is none: use sdpa")
    if "flash" in name and precision == "fp32":
        raise ConfigError(f"{found}, which computes in bf16 or fp16, and training.precision comes to fp32: use sdpa")
    if model.trust_remote_code:
        return  # code that comes with a model may not allow to be built without weights
    try:
        with torch.device("meta"):
            model_class(config).from_config(copy.deepcopy(config), attn_implementation=name)
    except Exception as error:  # the package is missing, or the model has no such attention
        raise ConfigError(f"{found}: {first_line(error)}") from None
