"""The vocabulary of a model: rows for every token id, and which ids the special tokens have."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from presence_ds.data import DataConfig
from presence_ds.data.tokenizer.config import special_tokens
from presence_ds.data.tokenizer.encoding import needed_rows
from presence_ds.errors import ConfigError
from presence_ds.trainer.building.architecture import DECODER_START, set_token_id, text_config
from presence_ds.trainer.building.model_config import ModelConfig

MULTIPLE = 64  # matrix sides that accelerators like


@dataclass(frozen=True)
class Vocabulary:
    """What a model has to know of a tokenizer.

    Attributes:
        rows: one more than the largest token id.
        bos_token_id, eos_token_id, pad_token_id: ids; None where the tokenizer has no such token.
        is_known: whether the tokenizer is at hand. One that is to be trained may become smaller than ``rows``.
    """

    rows: int
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int | None
    is_known: bool = True

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Vocabulary":
        """That of a tokenizer."""
        return cls(needed_rows(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)

    @classmethod
    def to_be_trained(cls, data: DataConfig) -> "Vocabulary":
        """The largest that ``data``, validated, leads to."""
        assert data.tokenizer.vocab_size is not None  # TokenizerConfig.validate
        sentinels = data.lengths.spans
        bos = len(special_tokens("EOS", sentinels, True)) - 1 if data.tokenizer.add_bos else 0
        return cls(data.tokenizer.vocab_size, bos, 0, 1 if sentinels > 0 else None, is_known=False)


def fit_vocabulary(config: PretrainedConfig, model: ModelConfig, vocabulary: Vocabulary) -> None:
    """Fill in what a configuration leaves to the tokenizer, in place, and check that every token id has a row.

    Raises:
        ConfigError: the model's vocab_size is too small for a tokenizer that is known.
    """
    text = text_config(config)
    given = dict(model.config or {})
    for name, section in (model.config or {}).items():
        if isinstance(section, dict) and getattr(config, name, None) is text:
            given |= section
    if model.config is not None:
        if "vocab_size" not in given:
            text.vocab_size = -(-vocabulary.rows // MULTIPLE) * MULTIPLE
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if name not in given:
                set_token_id(config, name, getattr(vocabulary, name))
    elif vocabulary.is_known and getattr(text, "pad_token_id", None) is None and vocabulary.pad_token_id is not None:
        set_token_id(config, "pad_token_id", vocabulary.pad_token_id)
    if config.is_encoder_decoder:
        _fit_decoder(config, given, vocabulary)
    if vocabulary.is_known and vocabulary.rows > text.vocab_size:
        found = "model vocab_size is" if model.path is None else f"model.path is {model.path}, whose vocab_size is"
        raise ConfigError(
            f"{found} {text.vocab_size}, and the tokenizer's largest id is {vocabulary.rows - 1}: it must be at least "
            f"{vocabulary.rows}"
        )


def train_padding(model: nn.Module, config: PretrainedConfig, *, is_random: bool) -> None:
    """Have the token that ``config`` names for padding trained as every other token is.

    The embeddings of transformers keep that row as it is, at zero in random weights. But the token is mostly one that
    stands in text, as EOS, or that a decoder begins with. Padding itself has no gradient, as labels and mask hide it.

    Args:
        is_random: whether the weights have just been drawn, so that the row is drawn too.
    """
    text = text_config(config)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            if module.num_embeddings != text.vocab_size:
                continue  # of positions
            row = module.weight.data[module.padding_idx]
            if is_random and not row.any():
                row.normal_(std=getattr(text, "initializer_range", None) or 0.02)
            module.padding_idx = None


def _fit_decoder(config: PretrainedConfig, given: dict[str, Any], vocabulary: Vocabulary) -> None:
    """What an encoder-decoder model needs to make the decoder's inputs out of labels."""
    if config.pad_token_id is None:
        padding = vocabulary.pad_token_id
        config.pad_token_id = vocabulary.eos_token_id if padding is None else padding
    if getattr(config, DECODER_START, None) is None or (given and DECODER_START not in given):
        config.decoder_start_token_id = config.pad_token_id
