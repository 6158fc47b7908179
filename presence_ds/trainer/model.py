"""Which model to train: a `transformers` configuration, or that of a checkpoint."""

from dataclasses import dataclass, field
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
)

from presence_ds.data import ObjectiveConfig
from presence_ds.errors import ConfigError

DECODER_START = "decoder_start_token_id"  # T5 has it without listing it
ADAPTER = "adapter_config.json"
LEGACY_FIELDS = {"rope_theta", "rope_scaling"}  # transformers moves them into rope_parameters


@dataclass
class ModelConfig:
    """A causal or encoder-decoder language model of `transformers`. Give config or path, not both.

    Args:
        config: A `transformers` configuration: model_type (llama, gpt2, mt5, ...) and that type's own fields. The model
            starts from random weights. vocab_size may be left out: it is then the tokenizer's size, rounded up to a
            multiple of 64; the special token ids are the tokenizer's unless given, and a decoder starts with padding.
        path: A local directory, or a name on the Hugging Face hub.
        from_scratch: With path: take the configuration only and start from random weights.
        differing_weights: Patterns of names, such as lm_head.*, in which the weights at path may differ from the
            model: what they do not have is drawn at random, and what is not the model's is left out.
        trust_remote_code: Let Python code that comes with the model run on this machine.
        attention: Attention implementation: eager, sdpa, or on a GPU flash_attention_2 (needs package flash-attn, and
            bf16 or fp16), flex_attention and what else `transformers` knows. null: what `transformers` chooses.
        activation_checkpointing: Compute the activations of every block again in the backward pass instead of keeping
            them; needs presence.strategy two_pass.
        compile: Run the passes that are ordinary forwards through torch.compile: the weighted pass of presence.strategy
            two_pass, or all of presence.signal loss; ZeRO 0 to 2. A name, such as aot_eager, is another backend than
            inductor.
    """

    config: dict[str, Any] | None = None
    path: str | None = None
    from_scratch: bool = False
    differing_weights: list[str] = field(default_factory=list)
    trust_remote_code: bool = False
    attention: str | None = None
    activation_checkpointing: bool = False
    compile: bool | str = False

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if (self.config is None) == (self.path is None):
            state = "neither is set" if self.config is None else "both are set"
            raise ConfigError(f"{field}.config and {field}.path: {state}; give exactly one of them")
        if self.differing_weights and not self.is_pretrained:
            raise ConfigError(
                f"{field}.differing_weights is {self.differing_weights}, and no weights are loaded: it must be left out"
            )
        if self.compile_backend not in (None, *(known := torch.compiler.list_backends(exclude_tags=()))):
            raise ConfigError(
                f'{field}.compile is "{self.compile}": it must be true, false or one of {", ".join(known)}'
            )

    @property
    def is_pretrained(self) -> bool:
        """Whether the model starts from weights that exist."""
        return self.path is not None and not self.from_scratch

    @property
    def source(self) -> str:
        """``path``, of which transformers would take a ~ for the name of a folder."""
        assert self.path is not None
        return str(Path(self.path).expanduser()) if self.path.startswith("~") else self.path

    @property
    def compile_backend(self) -> str | None:
        """Backend of torch.compile; None if nothing is compiled."""
        return ("inductor" if self.compile else None) if isinstance(self.compile, bool) else self.compile


def check_folder(model: ModelConfig, field: str = "model") -> None:
    """Raise `ConfigError` if ``model.path`` looks like a folder and is none."""
    if model.path is not None and model.path.startswith(("/", ".", "~")) and not Path(model.source).is_dir():
        raise ConfigError(f"{field}.path is {model.path}: there is no such directory")


def load_model_config(model: ModelConfig, field: str = "model") -> PretrainedConfig:
    """The `transformers` configuration that ``model`` names, its field names and types checked.

    Raises:
        ConfigError: an unknown model type or field, a value of the wrong type, or no configuration at the path.
    """
    if model.path is not None:
        check_folder(model, field)
        if model.is_pretrained and Path(model.source, ADAPTER).is_file():
            raise ConfigError(
                f"{field}.path is {model.path}: it holds an adapter ({ADAPTER}): merge it into its model, and name that"
            )
        try:
            config = AutoConfig.from_pretrained(model.source, trust_remote_code=model.trust_remote_code)
        except Exception as error:  # also whatever a damaged config.json leads to
            raise ConfigError(f"{field}.path is {model.path}: {first_line(error)}") from None
        _drop_foreign_padding(config)
        return config
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


def _drop_foreign_padding(config: PretrainedConfig) -> None:
    """Forget, in place, a padding token that is not in the vocabulary: old configurations say -1, or a row too many."""
    text = text_config(config)
    padding, rows = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if padding is not None and rows is not None and not 0 <= padding < rows:
        set_token_id(config, "pad_token_id", None)


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
