"""The tokenizer: one that exists, or a byte-level BPE trained on the training documents."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from presence_ds.data.tokenizer.tokenizer_config import BOS, PADDING, SENTINEL, TokenizerConfig, special_tokens
from presence_ds.data.tokenizer.tokenizer_file import as_in_its_file
from presence_ds.errors import DataError

DEFAULT_EOS = "<|endoftext|>"


def load_tokenizer(config: TokenizerConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer that ``config.path`` names.

    Raises:
        DataError: it cannot be loaded, has no EOS token, ``eos_token`` is not in its vocabulary, or ``add_bos`` cannot
            be done.
    """
    assert config.path is not None
    path = Path(config.path).expanduser()
    try:
        if path.is_file():
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
        else:
            name = str(path) if path.is_dir() else config.path
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=config.trust_remote_code)
            tokenizer = as_in_its_file(tokenizer, name)
    except DataError:
        raise
    except Exception as error:  # transformers and tokenizers raise bare Exceptions for files they cannot read
        reason = " ".join(str(error).split())
        raise DataError(f"data.tokenizer.path {config.path} cannot be loaded as a tokenizer: {reason}") from error
    if config.eos_token is not None:
        if config.eos_token not in tokenizer.get_vocab():
            raise DataError(f"data.tokenizer.eos_token {config.eos_token} is not in the vocabulary of {config.path}")
        tokenizer.eos_token = config.eos_token
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"data.tokenizer.path {config.path} has no EOS token: set data.tokenizer.eos_token to one it has"
        )
    if config.add_bos is not None:
        _set_bos(tokenizer, config)
    return tokenizer


def _set_bos(tokenizer: PreTrainedTokenizerBase, config: TokenizerConfig) -> None:
    """Have the template of ``tokenizer`` do what ``config.add_bos`` says, so that it is saved and exported with it."""
    if bool(document_start(tokenizer)) == config.add_bos:
        return
    found = f"data.tokenizer.add_bos is {str(config.add_bos).lower()}, and the tokenizer {config.path}"
    if tokenizer.bos_token_id is None:
        raise DataError(f"{found} has no BOS token: leave it out")
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(f"{found} has a template that only its own code can change: leave it out")
    tokenizer.add_bos_token = config.add_bos


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str], num_sentinels: int = 0) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE (every byte is a token, so any text can be encoded and decoded back exactly).

    With ``num_sentinels`` above 0 it has so many, and no fewer than T5's, and a padding token.
    """
    assert config.vocab_size is not None  # TokenizerConfig.validate
    eos = config.eos_token or DEFAULT_EOS
    special = special_tokens(eos, num_sentinels, bool(config.add_bos))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # A document follows the EOS of another one, so EOS is also what a text begins after.
    names: dict[str, Any] = {"eos_token": eos, "bos_token": eos}
    if config.add_bos:
        names |= {"bos_token": BOS, "add_bos_token": True}
    if num_sentinels > 0:
        names |= {"pad_token": PADDING, "additional_special_tokens": [name for name in special[2:] if name != BOS]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of documents, with what `document_start` puts before each but one that is empty, and without EOS.

    The name of a special token inside a text is encoded as text, never as that token.
    """
    if not texts:  # which transformers does not take
        return []
    found: list[list[int]] = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    start = document_start(tokenizer)
    return [[*start, *ids] if ids else [] for ids in found] if start else found


def document_start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer's template puts before a text: BOS, [CLS], or nothing. After it comes EOS in any case."""
    for text in _anchors(tokenizer):
        try:
            ids, whole = tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer(text)["input_ids"]
        except Exception:  # of a vocabulary of words that has none for what it does not know
            continue
        if ids:
            return next((whole[:at] for at in range(len(whole)) if whole[at : at + len(ids)] == ids), [])
    return []


def _anchors(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    yield "a"  # which nearly every vocabulary can express
    yield from islice((token for token in tokenizer.get_vocab() if token not in tokenizer.all_special_tokens), 100)


def needed_rows(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that an embedding needs for every id: the largest one counts, as a vocabulary may have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills samples up; where a tokenizer has none of its own, EOS, which the mask and labels hide."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def sentinel_ids(tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """Ids of <extra_id_0>, <extra_id_1>, ..., ``count`` of them; mT5's vocabulary writes them as words of their own.

    Raises:
        DataError: the tokenizer has fewer.
    """
    vocabulary = tokenizer.get_vocab()
    ids = []
    for name in (SENTINEL.format(index) for index in range(count)):
        found = vocabulary.get(name, vocabulary.get("\u2581" + name))
        if found is None:
            raise DataError(
                f"the tokenizer has no {name}, and span corruption needs {count} sentinels, up to "
                f"{SENTINEL.format(count - 1)}: name another in data.tokenizer.path, shorten data.sequence_length, or "
                f"raise data.objective.mean_span_length"
            )
        ids.append(found)
    return ids
