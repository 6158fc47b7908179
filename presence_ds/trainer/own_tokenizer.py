"""Pretrained weights know the tokens of their own tokenizer, and of no other."""

from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from presence_ds.data import DataConfig, TokenizerConfig, load_tokenizer
from presence_ds.data.corpus import load_corpus_tokenizer
from presence_ds.data.prepared import prepared_folder
from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.model import check_folder
from presence_ds.trainer.model_config import ModelConfig


def use_tokenizer_of_model(model: ModelConfig, data: DataConfig) -> None:
    """Have ``data`` take the tokenizer beside pretrained weights, in place, unless it names one.

    Call it before ``data`` is validated, which fills in the size of a tokenizer to be trained.

    Raises:
        ConfigError: the weights have no tokenizer with them, or one is to be trained, or was for ``data.prepared``.
    """
    if not model.is_pretrained or model.config is not None or data.tokenizer.path is not None:
        return
    check_folder(model)
    known = f"the weights of model.path {model.path} know the tokens of their own"
    if data.prepared is not None:
        own = load_own(model)
        if own is None or own.get_vocab() != known_tokenizer(data).get_vocab():  # type: ignore[union-attr]
            raise ConfigError(
                f"data.prepared {data.prepared} was made with a tokenizer trained on its text, and {known}: prepare it "
                f"with data.tokenizer.path, or set model.from_scratch"
            )
        return
    if data.tokenizer.vocab_size is not None:
        raise ConfigError(
            f"data.tokenizer.vocab_size is {data.tokenizer.vocab_size}, so that a tokenizer is trained, and {known}: "
            f"leave it out, or set model.from_scratch"
        )
    config = replace(data.tokenizer, path=model.source)
    try:
        load_tokenizer(config)
    except DataError as error:
        raise ConfigError(
            f"data.tokenizer.path is not set, and model.path {model.path} brings no tokenizer that can be used "
            f"({error}): set it, or model.from_scratch"
        ) from None
    data.tokenizer = config


def known_tokenizer(data: DataConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a run, once `use_tokenizer_of_model` has been called; None where it is still to be trained.

    Raises:
        DataError: it cannot be loaded.
    """
    if data.prepared is not None:
        return load_corpus_tokenizer(prepared_folder(data), data.tokenizer.trust_remote_code)
    return None if data.tokenizer.path is None else load_tokenizer(data.tokenizer)


def load_own(model: ModelConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder of a model; None where there is none that can be loaded."""
    if not Path(model.source).is_dir():
        return None  # on the hub, which is not asked for this
    try:
        return load_tokenizer(TokenizerConfig(path=model.source))
    except DataError:
        return None


def other_tokens(model: ModelConfig, data: DataConfig, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A warning where ``tokenizer`` has other ids than the one beside pretrained weights; None where all is well."""
    if not model.is_pretrained or data.tokenizer.path in (None, model.source):
        return None
    own = load_own(model)
    if own is None:
        return None
    ours, theirs = tokenizer.get_vocab(), own.get_vocab()
    differing = sorted(theirs.items() - ours.items(), key=lambda item: item[1])
    if not differing:
        return None
    token, id_ = differing[0]
    return (
        f"data.tokenizer.path {data.tokenizer.path} is not that of model.path {model.path}: of its {len(theirs):,} "
        f"tokens {len(differing):,} have another id or none, the first of them {token!r}, there {id_}, here "
        f"{ours.get(token, 'none')}"
    )
