"""How much text a token stands for, so that losses under different tokenizers can be compared in bits per byte."""

import json
import re

import torch
from transformers import PreTrainedTokenizerBase

from presence_ds.errors import DataError

ANCHOR = "a"  # what a token is decoded after: at the start of a text, decoders leave white space away
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
TEXTS = (  # each as NFC leaves it: tokenizers that do no more than that are told by the bytes of most text
    "The model reads 13 lines, and another one after it (so they say).",
    "Größe, naïve café, façade, Œuvre, ½ ﬁ ① Ａ",
    "русский ελληνικά العربية हिन्दी 日本語の文章 🙂👩‍👩‍👧",
    "def f(x):\n    return  x\n\n\tif  y:\n",
    " a space before and two after  ",
)


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """UTF-8 bytes of text behind every token id, [largest id + 1] int64; 0 for special tokens and unused ids.

    The bytes of a text's tokens add up to the text's, and to one more where a tokenizer puts a space before a text
    (SentencePiece).

    Raises:
        DataError: they do not for one of `TEXTS`, as the tokenizer drops or rewrites a part of it (WordPiece: repeated
            white space; T5: that, and what NFKC changes).
    """
    sizes = _sizes(tokenizer)
    unknown = tokenizer.unk_token_id
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        found, right = int(sizes[ids].sum()), len(text.encode())
        if unknown not in ids and not right <= found <= right + 1:
            raise DataError(
                f"bytes of text cannot be counted with {type(tokenizer).__name__}, which drops or rewrites text: the "
                f"{len(ids)} tokens of {text!r} stand for {found} bytes of {right}"
            )
    return sizes


def _sizes(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    special = set(tokenizer.all_special_ids)
    vocabulary = {id_: token for token, id_ in tokenizer.get_vocab().items()}
    added = {id_: token.content for id_, token in tokenizer.added_tokens_decoder.items()}
    one_byte_each = _is_one_byte_each(tokenizer)
    byte_level = not one_byte_each and _is_byte_level(tokenizer)
    sizes = torch.zeros(max(vocabulary) + 1, dtype=torch.int64)
    decoded = []
    for id_, token in vocabulary.items():
        if id_ in special:
            continue
        if one_byte_each or (not byte_level and BYTE_TOKEN.fullmatch(token)):
            sizes[id_] = 1
        elif id_ in added:
            sizes[id_] = len(added[id_].encode())
        elif byte_level:  # each character of such a token stands for one byte
            sizes[id_] = len(token)
        else:
            decoded.append(id_)
    if decoded:
        anchor = tokenizer.encode(ANCHOR, add_special_tokens=False)
        texts = tokenizer.batch_decode(
            [anchor, *([*anchor, id_] for id_ in decoded)], clean_up_tokenization_spaces=False
        )
        alone, *others = (len(text.encode()) for text in texts)
        sizes[decoded] = (torch.tensor(others) - alone).clamp(min=0)
    return sizes


def _is_one_byte_each(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether text becomes as many tokens as it has bytes (ByT5), so that decoding one alone may give nothing."""
    return all(len(tokenizer.encode(text, add_special_tokens=False)) == len(text.encode()) for text in TEXTS)


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether tokens are written in the alphabet of byte-level BPE, one character per byte."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hasattr(tokenizer, "byte_decoder")
    return '"ByteLevel"' in json.dumps(json.loads(backend.to_str()).get("decoder"))
