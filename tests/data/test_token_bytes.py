"""Bytes per token against the length of the texts themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from presence_ds.data import TokenizerConfig
from presence_ds.data.token_bytes import token_bytes
from presence_ds.data.tokenizer import encode, train_tokenizer

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
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[SEP]"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[SEP]", unk_token="[UNK]")


@pytest.mark.parametrize("make", [sentencepiece, wordpiece])
def test_other_tokenizers_exceed_the_text_by_its_first_space(make) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make()
    sizes = token_bytes(tokenizer)
    for text in TEXTS[:3]:
        (ids,) = encode(tokenizer, [text])
        assert tokenizer.unk_token_id not in ids
        assert sizes[ids].sum() == len(f" {text}".encode())
