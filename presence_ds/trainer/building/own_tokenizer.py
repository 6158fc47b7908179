"""Pretrained weights know the tokens of their own tokenizer, and of no other."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from presence_ds.data import DataConfig, TokenizerConfig, load_tokenizer
from presence_ds.data.corpus.opening import load_corpus_tokenizer
from presence_ds.data.corpus.prepared import prepared_folder
from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.building.model_config import ModelConfig


def known_tokenizer(model: ModelConfig, data: DataConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a validated recipe; None where it is still to be trained, or to come from the hub.

    The hub is asked once, when the corpus is prepared or opened: not by every rank, and not for an estimate.

    Raises:
        ConfigError: ``data.prepared`` was made with one trained for it, and pretrained weights know other tokens, or
            they are to train with their own and have none.
        DataError: it cannot be loaded.
    """
    if data.prepared is not None:
        tokenizer = load_corpus_tokenizer(prepared_folder(data), data.tokenizer.trust_remote_code)
        if model.is_pretrained and data.tokenizer.path is None:
            own = load_own(model)
            if own is None or own.get_vocab() != tokenizer.get_vocab():
                raise ConfigError(
                    f"data.prepared {data.prepared} was made with a tokenizer trained on its text, and the weights of "
                    f"model.path {model.path} know their own: prepare it with data.tokenizer.path, or set "
                    f"model.from_scratch"
                )
        return tokenizer
    if data.tokenizer.path is None or not Path(data.tokenizer.path).expanduser().exists():
        return None
    try:
        return load_tokenizer(data.tokenizer)
    except DataError as error:
        if not model.is_pretrained or data.tokenizer.path != model.source:
            raise
        raise ConfigError(
            f"model.path {model.path} brings no tokenizer that can be used: set data.tokenizer.path, or "
            f"model.from_scratch ({error})"
        ) from None


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
    found = difference(tokenizer, own)
    return found and f"data.tokenizer.path {data.tokenizer.path} is not that of model.path {model.path}: {found}"


def difference(tokenizer: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase) -> str | None:
    """Which tokens of ``own``, a model's, have other ids in ``tokenizer``, in words; None if all are there."""
    ours, theirs = tokenizer.get_vocab(), own.get_vocab()
    differing = sorted(theirs.items() - ours.items(), key=lambda item: item[1])
    if not differing:
        return None
    token, id_ = differing[0]
    return (
        f"of its {len(theirs):,} tokens {len(differing):,} have another id or none, the first of them {token!r}, there "
        f"{id_}, here {ours.get(token, 'none')}"
    )
