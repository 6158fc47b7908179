"""The model to train: from a `transformers` configuration, or from a checkpoint."""

import copy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from presence_ds.data import ObjectiveConfig
from presence_ds.data.tokenizer import padding_id
from presence_ds.errors import ConfigError
from presence_ds.trainer.model_config import ModelConfig

VOCABULARY_MULTIPLE = 64  # matrix sides that accelerators like
DECODER_START = "decoder_start_token_id"  # T5 has it without listing it
LEGACY_FIELDS = {"rope_theta", "rope_scaling"}  # transformers moves them into rope_parameters


def load_model_config(model: ModelConfig, field: str = "model") -> PretrainedConfig:
    """The `transformers` configuration that ``model`` names, its field names and types checked.

    Raises:
        ConfigError: an unknown model type or field, a value of the wrong type, or no configuration at the path.
    """
    if model.path is not None:
        if model.path.startswith(("/", ".", "~")) and not Path(model.path).expanduser().is_dir():
            raise ConfigError(f"{field}.path is {model.path}: there is no such directory")
        try:
            return AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{field}.path is {model.path}: {first_line(error)}") from None
    assert model.config is not None  # ModelConfig.validate
    fields = dict(model.config)
    model_type = fields.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f'{field}.config.model_type is "{model_type}": it must be a model type of transformers, such as llama'
        )
    config_class = CONFIG_MAPPING[model_type]
    known = set(config_class().to_dict()) | set(config_class.attribute_map) | LEGACY_FIELDS
    if config_class().is_encoder_decoder:
        known.add(DECODER_START)
    for name in fields:
        if name not in known:
            raise ConfigError(f"{field}.config.{name} is not a field of {config_class.__name__}")
    try:
        return config_class(**fields)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"{field}.config: {' '.join(str(error).split())}") from None


def check_model_config(config: PretrainedConfig, model: ModelConfig, field: str = "model") -> None:
    """Raise `ConfigError` if `transformers` cannot build the model that an inline configuration describes.

    It is built on the meta device, without weights; code that comes with a model may not allow that and is not tried.
    """
    if model.config is None:
        return
    try:
        with torch.device("meta"):
            model_class(config).from_config(copy.deepcopy(config))
    except Exception as error:  # whatever sizes that do not fit lead to
        raise ConfigError(f"{field}.config describes no model that can be built: {first_line(error)}") from None


def check_objective(config: PretrainedConfig, objective: ObjectiveConfig, field: str = "data.objective") -> None:
    """Raise `ConfigError` if models of this kind are not trained with ``objective``."""
    if objective.is_causal and config.is_encoder_decoder:
        raise ConfigError(
            f"{field}.kind is causal, and {config.model_type} is an encoder-decoder model: it must be span_corruption"
        )
    if not objective.is_causal and not config.is_encoder_decoder:
        raise ConfigError(
            f"{field}.kind is {objective.kind}, and {config.model_type} is no encoder-decoder model: it must be "
            f"causal, or the model one such as t5 or mt5"
        )


def check_sequence_length(config: PretrainedConfig, sequence_length: int, field: str) -> None:
    """Raise `ConfigError` if the model's positions end before ``sequence_length`` tokens."""
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and sequence_length > longest:
        raise ConfigError(
            f"{field} is {sequence_length}, longer than the model's max_position_embeddings: "
            f"it must be at most {longest}"
        )


def round_vocabulary(tokens: int) -> int:
    """The vocab_size that a model gets whose configuration leaves it to a tokenizer of ``tokens`` tokens."""
    return -(-tokens // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def fit_vocabulary(config: PretrainedConfig, model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fill in what an inline configuration leaves to the tokenizer, in place, and check that every token id fits."""
    given = model.config or {}
    if model.config is not None:
        if "vocab_size" not in given:
            config.vocab_size = round_vocabulary(len(tokenizer))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if name not in given:
                setattr(config, name, getattr(tokenizer, name))
    if config.is_encoder_decoder:
        _fit_decoder(config, given, tokenizer)
    if len(tokenizer) > config.vocab_size:
        raise ConfigError(
            f"model vocab_size is {config.vocab_size}, smaller than the tokenizer's {len(tokenizer)} tokens: "
            f"it must be at least {len(tokenizer)}"
        )


def _fit_decoder(config: PretrainedConfig, given: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """What an encoder-decoder model needs to make the decoder's inputs out of labels."""
    if config.pad_token_id is None:
        config.pad_token_id = padding_id(tokenizer)
    if getattr(config, DECODER_START, None) is None or (given and DECODER_START not in given):
        config.decoder_start_token_id = config.pad_token_id


def model_class(config: PretrainedConfig) -> Any:
    """The class of `transformers` that builds the model."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def build_model(config: PretrainedConfig, model: ModelConfig) -> torch.nn.Module:
    """The model in float32 on the CPU, whole on every rank; DeepSpeed casts, moves and partitions it.

    Random weights are drawn from torch's global generator.
    """
    options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if model.attention is not None:
        options["attn_implementation"] = model.attention
    try:
        if model.path is not None and not model.from_scratch:
            built = model_class(config).from_pretrained(
                model.path, config=config, dtype=torch.float32, use_safetensors=True, **options
            )
        else:
            built = model_class(config).from_config(config, dtype=torch.float32, **options)
        if model.activation_checkpointing:
            built.gradient_checkpointing_enable({"use_reentrant": False})
        return built
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"model: {first_line(error)}") from None


def build_empty_model(config: PretrainedConfig, model: ModelConfig, dtype: torch.dtype) -> torch.nn.Module:
    """The model on the meta device: shapes and dtypes alone, in training mode."""
    attention = "sdpa" if "flash" in (model.attention or "") else model.attention  # keeps the same, needs no package
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        with torch.device("meta"):
            built = model_class(config).from_config(
                config, dtype=dtype, trust_remote_code=model.trust_remote_code, **options
            )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"model: {first_line(error)}") from None
    if model.activation_checkpointing:
        built.gradient_checkpointing_enable({"use_reentrant": False})
    return built.train()


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
