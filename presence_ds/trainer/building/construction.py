"""The model itself: with its weights, or without any to find out whether it can be trained, and with what attention."""

import copy
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from presence_ds.errors import ConfigError
from presence_ds.trainer.building.architecture import first_line, model_class, text_config
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.building.pretrained import load_pretrained
from presence_ds.trainer.building.vocabulary import train_padding


def build_model(config: PretrainedConfig, model: ModelConfig) -> torch.nn.Module:
    """The model in float32 on the CPU, whole on every rank; DeepSpeed casts, moves and partitions it.

    Random weights are drawn from torch's global generator.

    Raises:
        ConfigError: it cannot be built, or the weights at ``model.path`` are not all of its own.
    """
    options: dict[str, Any] = {"dtype": torch.float32}
    if model.attention is not None:
        options["attn_implementation"] = model.attention
    if model.is_pretrained:
        built = load_pretrained(config, model, **options)
    else:
        try:
            built = model_class(config).from_config(config, trust_remote_code=model.trust_remote_code, **options)
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(f"model: {first_line(error)}") from None
    train_padding(built, config, is_random=not model.is_pretrained)
    return _for_training(built, model)


def _for_training(built: Any, model: ModelConfig) -> torch.nn.Module:
    """The model with activation checkpointing, if asked for, and without training of what text does not go through.

    Such as a vision tower: weight decay alone would move it.
    """
    if text_config(built.config) is not built.config:
        parts = (built.get_decoder(), built.get_input_embeddings(), built.get_output_embeddings())
        of_text = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
        for parameter in built.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in of_text)
    if model.activation_checkpointing:
        built.gradient_checkpointing_enable({"use_reentrant": False})
    return built


def try_to_build(config: PretrainedConfig, model: ModelConfig) -> torch.nn.Module | None:
    """The model on the meta device, without weights; None for code that comes with a model, which may not allow that.

    Raises:
        ConfigError: `transformers` cannot build it.
    """
    if model.trust_remote_code:
        return None
    try:
        return _without_weights(config, model)
    except Exception as error:  # whatever sizes that do not fit lead to
        described = "model.config describes" if model.path is None else f"model.path {model.path} describes"
        raise ConfigError(f"{described} no model that can be built: {first_line(error)}") from None


def check_attention(config: PretrainedConfig, model: ModelConfig, *, device: str | None, precision: str) -> None:
    """Raise `ConfigError` if the model cannot train with ``model.attention``.

    Args:
        device: kind of device that computes, such as "cpu" or "cuda"; None: not this machine's, so that only the name
            is checked.
        precision: what the model computes in: bf16, fp16 or fp32.
    """
    name = model.attention
    if name is None:
        return
    found = f'model.attention is "{name}"'
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
        _without_weights(config, model, attn_implementation=name)
    except Exception as error:  # the package is missing, or the model has no such attention
        raise ConfigError(f"{found}: {first_line(error)}") from None


def build_empty_model(config: PretrainedConfig, model: ModelConfig, dtype: torch.dtype) -> torch.nn.Module:
    """The model on the meta device: shapes and dtypes alone, in training mode."""
    attention = "sdpa" if "flash" in (model.attention or "") else model.attention  # keeps the same, needs no package
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    try:
        built = _without_weights(config, model, dtype=dtype, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"model: {first_line(error)}") from None
    return _for_training(built, model).train()


def _without_weights(config: PretrainedConfig, model: ModelConfig, **options: Any) -> Any:
    with torch.device("meta"):
        return model_class(config).from_config(
            copy.deepcopy(config), trust_remote_code=model.trust_remote_code, **options
        )
