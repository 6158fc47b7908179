"""How much text a token stands for, so that losses under different tokenizers can be compared in bits per byte."""

import json
import re

import torch
from transformers import PreTrainedTokenizerBase

ANCHOR = "a"  # what a token is decoded after: at the start of a text, decoders leave white space away
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """UTF-8 bytes of text behind every token id, [largest id + 1] int64; 0 for special tokens and unused ids.

    Exact for byte-level BPE: the bytes of a text's tokens add up to the text's. Elsewhere it is what the token adds to
    a decoded text, which SentencePiece models exceed by the space that they put before a text, and which leaves out
    what a tokenizer drops (WordPiece: repeated white space).
    """
    special = set(tokenizer.all_special_ids)
    vocabulary = {id_: token for token, id_ in tokenizer.get_vocab().items()}
    added = {id_: token.content for id_, token in tokenizer.added_tokens_decoder.items()}
    byte_level = _is_byte_level(tokenizer)
    sizes = torch.zeros(max(vocabulary) + 1, dtype=torch.int64)
    decoded = []
    for id_, token in vocabulary.items():
        if id_ in special:
            continue
        if id_ in added:
            sizes[id_] = len(added[id_].encode())
        elif byte_level:  # each character of such a token stands for one byte
            sizes[id_] = len(token)
        elif BYTE_TOKEN.fullmatch(token):
            sizes[id_] = 1
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


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether tokens are written in the alphabet of byte-level BPE, one character per byte."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hasattr(tokenizer, "byte_decoder")
    return '"ByteLevel"' in json.dumps(json.loads(backend.to_str()).get("decoder"))
