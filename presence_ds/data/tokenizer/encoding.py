"""Documents as token ids, and the tokens that have a part of their own in samples."""

from collections.abc import Iterator
from itertools import islice

from transformers import PreTrainedTokenizerBase

from presence_ds.data.tokenizer.config import SENTINEL
from presence_ds.errors import DataError


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
