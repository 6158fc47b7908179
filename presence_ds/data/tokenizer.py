"""The tokenizer: one that exists, or a byte-level BPE trained on the training documents."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from presence_ds.errors import ConfigError, DataError

DEFAULT_EOS = "<|endoftext|>"
NUM_BYTES = 256
DEFAULT_VOCABULARY = 8192


@dataclass
class TokenizerConfig:
    """Where the tokenizer comes from.

    Args:
        path: Folder of a transformers tokenizer, a tokenizer.json file, or a name on the Hugging Face hub. None: train
            a byte-level BPE on the training documents.
        vocab_size: Number of tokens of a trained tokenizer, bytes and EOS included; a small corpus may give fewer.
            None: 8192, or what data.prepared was made with.
        eos_token: Token put after every document. None: the tokenizer's own; "<|endoftext|>" for a trained one.
        trust_remote_code: Run tokenizer code that comes with a hub name or a folder. Only for sources you trust.
    """

    path: str | None = None
    vocab_size: int | None = None
    eos_token: str | None = None
    trust_remote_code: bool = False

    def validate(self, field: str) -> None:
        """Fill in the default of vocab_size; raise `ConfigError` naming the field under ``field`` that is wrong."""
        if self.vocab_size is None:
            self.vocab_size = DEFAULT_VOCABULARY
        if self.path is None and self.vocab_size <= NUM_BYTES:
            raise ConfigError(
                f"{field}.vocab_size is {self.vocab_size}: it must be above {NUM_BYTES}, the number of bytes"
            )
        if self.path == "" or self.eos_token == "":
            raise ConfigError(f"{field}.{'path' if self.path == '' else 'eos_token'} is empty: give a value or null")


def load_tokenizer(config: TokenizerConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer that ``config.path`` names.

    Raises:
        DataError: it cannot be loaded, has no EOS token, or ``eos_token`` is not in its vocabulary.
    """
    assert config.path is not None
    path = Path(config.path).expanduser()
    try:
        if path.is_file():
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
        else:
            name = str(path) if path.is_dir() else config.path
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=config.trust_remote_code)
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
    return tokenizer


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE (every byte is a token, so any text can be encoded and decoded back exactly)."""
    assert config.vocab_size is not None  # TokenizerConfig.validate
    eos = config.eos_token or DEFAULT_EOS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # A document follows the EOS of another one, so EOS is also what a text begins after.
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=eos)


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of plain texts. The name of a special token inside a text is encoded as text, never as that token."""
    if not texts:  # which transformers does not take
        return []
    return tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills samples up; where a tokenizer has none of its own, EOS, which the mask and labels hide."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
