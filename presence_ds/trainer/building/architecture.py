"""Which model to train: a `transformers` configuration, or that of a checkpoint."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig

from presence_ds.data import ObjectiveConfig
from presence_ds.errors import ConfigError
from presence_ds.trainer.building.model_config import ModelConfig

DECODER_START = "decoder_start_token_id"  # T5 has it without listing it
ADAPTER = "adapter_config.json"
LEGACY_FIELDS = {"rope_theta", "rope_scaling"}  # transformers moves them into rope_parameters


def load_model_config(model: ModelConfig) -> PretrainedConfig:
    """The `transformers` configuration that ``model`` names, its field names and types checked.

    Raises:
        ConfigError: an unknown model type or field, a value of the wrong type, or no configuration at the path.
    """
    if model.path is not None:
        if model.is_pretrained and Path(model.source, ADAPTER).is_file():
            raise ConfigError(
                f"model.path is {model.path}: it holds an adapter ({ADAPTER}): merge it into its model, and name that"
            )
        try:
            config = AutoConfig.from_pretrained(model.source, trust_remote_code=model.trust_remote_code)
        except Exception as error:  # also whatever a damaged config.json leads to
            raise ConfigError(f"model.path is {model.path}: {first_line(error)}") from None
        _drop_foreign_padding(config)
        return config
    assert model.config is not None  # ModelConfig.validate
    fields = dict(model.config)
    model_type = fields.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f'model.config.model_type is "{model_type}": it must be a model type of transformers, such as llama'
        )
    config_class = CONFIG_MAPPING[model_type]
    known = set(config_class().to_dict()) | set(config_class.attribute_map) | LEGACY_FIELDS
    if config_class().is_encoder_decoder:
        known.add(DECODER_START)
    for name in fields:
        if name not in known:
            raise ConfigError(f"model.config.{name} is not a field of {config_class.__name__}")
    try:
        return config_class(**fields)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(f"model.config: {' '.join(str(error).split())}") from None


def _drop_foreign_padding(config: PretrainedConfig) -> None:
    """Forget, in place, a padding token that is not in the vocabulary: old configurations say -1, or a row too many."""
    text = text_config(config)
    padding, rows = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if padding is not None and rows is not None and not 0 <= padding < rows:
        set_token_id(config, "pad_token_id", None)


def check_objective(config: PretrainedConfig, objective: ObjectiveConfig) -> None:
    """Raise `ConfigError` if models of this kind are not trained with ``objective``."""
    if objective.is_causal and config.is_encoder_decoder:
        raise ConfigError(
            f"data.objective.kind is causal, and {config.model_type} is an encoder-decoder model: it must be "
            f"span_corruption"
        )
    if not objective.is_causal and not config.is_encoder_decoder:
        raise ConfigError(
            f"data.objective.kind is {objective.kind}, and {config.model_type} is no encoder-decoder model: it must be "
            f"causal, or the model one such as t5 or mt5"
        )


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of ``config`` that the text model is made of: all of it, or a section such as ``text_config``.

    Raises:
        ConfigError: there are several.
    """
    try:
        return config.get_text_config()
    except ValueError:
        raise ConfigError(
            f"model is of type {config.model_type}, which is made of several text models: it must be a language model"
        ) from None


def set_token_id(config: PretrainedConfig, name: str, value: int | None) -> None:
    """Set a special token in the text's configuration, and in the whole one where it has it too."""
    text = text_config(config)
    setattr(text, name, value)
    if text is not config and hasattr(config, name):
        setattr(config, name, value)


def model_class(config: PretrainedConfig) -> Any:
    """The class of `transformers` that builds the model."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
