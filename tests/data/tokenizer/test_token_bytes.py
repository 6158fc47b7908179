"""Bytes per token against the length of the texts themselves."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from presence_ds.data import TokenizerConfig
from presence_ds.data.tokenizer.encoding import encode
from presence_ds.data.tokenizer.token_bytes import TEXTS as BATTERY
from presence_ds.data.tokenizer.token_bytes import token_bytes
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import DataError

TEXTS = [
    "the model reads a line, and another one after it",
    "über Größe und Öl",
    "日本語の文章 🙂 и ещё",
    "a\n\n\tb  c",
] * 20
BYTE_LEVEL = train_tokenizer(TokenizerConfig(vocab_size=330), TEXTS)
BYTE_SIZES = token_bytes(BYTE_LEVEL)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_byte_level_tokens_add_up_to_the_text(text: str) -> None:
    (ids,) = encode(BYTE_LEVEL, [text])
    assert BYTE_SIZES[ids].sum() == len(text.encode())


def test_special_tokens_have_no_text() -> None:
    assert BYTE_SIZES[BYTE_LEVEL.eos_token_id] == 0
    assert len(BYTE_SIZES) == len(BYTE_LEVEL)


def test_added_tokens_have_their_own_text() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS)
    tokenizer.add_tokens(["Größe"])
    assert token_bytes(tokenizer)[tokenizer.convert_tokens_to_ids("Größe")] == len("Größe".encode())


def sentencepiece() -> PreTrainedTokenizerFast:
    """BPE over words that begin with "▁", with byte tokens for what it has not seen, as Llama 2 has."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[SEP]"])
    tokenizer.train_from_iterator([*TEXTS, *BATTERY], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[SEP]", unk_token="[UNK]")


def test_sentencepiece_exceeds_the_text_by_its_first_space() -> None:
    tokenizer = sentencepiece()
    sizes = token_bytes(tokenizer)
    for text in TEXTS:
        (ids,) = encode(tokenizer, [text])
        assert tokenizer.unk_token_id not in ids
        assert sizes[ids].sum() == len(f" {text}".encode())


def bytes_alone() -> PreTrainedTokenizerFast:
    """Byte-level BPE without a merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(["</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.mark.parametrize("make", [ByT5Tokenizer, bytes_alone])
def test_every_byte_counts_where_tokens_are_bytes(make: Callable[[], PreTrainedTokenizerBase]) -> None:
    tokenizer = make()
    sizes = token_bytes(tokenizer)
    for text in [*TEXTS[:4], "e\u0301 \u00a0\r\n\x00 end"]:
        (ids,) = encode(tokenizer, [text])
        assert sizes[ids].sum() == len(text.encode())
    assert sizes[tokenizer.all_special_ids].sum() == 0


def unigram(normalizer: normalizers.Normalizer) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator([*TEXTS, *BATTERY], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def test_tokenizer_that_changes_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"drops or rewrites text: the \d+ tokens of .* stand for \d+ bytes of \d+"):
        token_bytes(wordpiece())
    with pytest.raises(DataError, match=r"bytes of text cannot be counted with .* bytes of 54"):
        token_bytes(unigram(normalizers.NFKC()))
    token_bytes(unigram(normalizers.NFC()))
