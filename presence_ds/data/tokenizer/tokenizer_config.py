"""The ``data.tokenizer`` section of a recipe."""

from dataclasses import dataclass

from presence_ds.errors import ConfigError

BOS = "<|startoftext|>"  # of a trained tokenizer
NUM_BYTES = 256
DEFAULT_VOCABULARY = 8192
PADDING = "<pad>"
SENTINEL = "<extra_id_{}>"
MIN_SENTINELS = 100  # as many as T5 and mT5 have


@dataclass
class TokenizerConfig:
    """Where the tokenizer comes from.

    Args:
        path: Folder of a transformers tokenizer, a tokenizer.json file, or a name on the Hugging Face hub. None: train
            a byte-level BPE on the training documents.
        vocab_size: Number of tokens of a trained tokenizer, bytes and special tokens included; a small corpus may give
            fewer.
            None: 8192, or what data.prepared was made with.
        eos_token: Token put after every document. None: the tokenizer's own; "<|endoftext|>" for a trained one.
        add_bos: Whether BOS is put before every document. None: what the tokenizer's own template puts before a text,
            such as the BOS of Llama; nothing for a trained one.
        trust_remote_code: Run tokenizer code that comes with a hub name or a folder. Only for sources you trust.
    """

    path: str | None = None
    vocab_size: int | None = None
    eos_token: str | None = None
    add_bos: bool | None = None
    trust_remote_code: bool = False

    def validate(self, field: str, num_sentinels: int) -> None:
        """Fill in the default of vocab_size; raise `ConfigError` naming the field under ``field`` that is wrong.

        ``num_sentinels``: as for `train_tokenizer`.
        """
        if self.vocab_size is None:
            self.vocab_size = DEFAULT_VOCABULARY
        least = NUM_BYTES + len(special_tokens("EOS", num_sentinels, bool(self.add_bos)))
        if self.path is None and self.vocab_size < least:
            raise ConfigError(
                f"{field}.vocab_size is {self.vocab_size}: it must be at least {least}, {NUM_BYTES} bytes and "
                f"{least - NUM_BYTES} special tokens"
            )
        if self.path == "" or self.eos_token == "":
            raise ConfigError(f"{field}.{'path' if self.path == '' else 'eos_token'} is empty: give a value or null")


def special_tokens(eos: str, num_sentinels: int, add_bos: bool = False) -> list[str]:
    """The special tokens of a trained tokenizer, by their id: EOS; with sentinels padding and those in order; BOS."""
    sentinels = [SENTINEL.format(index) for index in range(max(num_sentinels, MIN_SENTINELS))]
    return [eos, *([PADDING, *sentinels] if num_sentinels > 0 else []), *([BOS] if add_bos else [])]
