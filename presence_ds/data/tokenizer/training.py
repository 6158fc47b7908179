"""A byte-level BPE trained on the training documents."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from presence_ds.data.tokenizer.config import BOS, PADDING, TokenizerConfig, special_tokens

DEFAULT_EOS = "<|endoftext|>"


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
