"""Whether transformers reads a tokenizer.json as it stands: some of its classes rebuild parts of it from their own."""

from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from presence_ds.errors import DataError

FILE = "tokenizer.json"
TEXTS = (
    "The quick brown fox can't jump; it's 3.14 o'clock, isn't it?",
    " leading and trailing ",
    "two  spaces, three   spaces,     five\t\ttabs",
    "lines\nmore\n\n\nlines\r\n\r\nand \n more \n",
    "kana 1977 lope 5862 1234567890 007 3,000.50 1e-5 0x1F 20:15",
    "def f(x):\n    if x != 1:\n\t\treturn [x ** 2, 'a_b', \"c\"]  # done\n",
    "<div class=\"a\">&amp;</div> {'key': null} a->b && c || d;",
    "https://example.org/a?b=1&c=%20 name@example.org C:\\path\\file.txt",
    "CamelCase snake_case SHOUTING dash-ed e.g. U.S.A. ...!!! ???",
    "Größe naïve café caf\u0065\u0301 Ærøskøbing İstanbul ﬁne ½ Å",
    "Привет, мир! Ёж и 12 яблок",
    "Γειά σου Κόσμε",
    "你好，世界。今天是2024年。",
    "こんにちは世界 カタカナ ﾊﾝｶｸ １２３",
    "안녕하세요 세계",
    "مرحبا بالعالم ٣٤٥",
    "שלום עולם",
    "नमस्ते दुनिया १२३",
    "สวัสดีชาวโลก",
    "😀 👩‍👩‍👧 🇩🇪 👍🏽 ☃",
    "zero\u200bwidth no\u00a0break \u3000 wide \ufeff mark",
    "x = \u2211 \u03b1\u2081 \u2264 \u221e \u2014 \u201cquotes\u201d \u2026",
)


def as_in_its_file(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """``tokenizer``, or one that gives the ids of its tokenizer.json where the class that transformers chose does not.

    They are compared on `TEXTS`, and so are the vocabularies, to which some classes add tokens of their own. Code that
    came with the tokenizer is left to do as it likes.

    Args:
        name: the folder or the name on the hub that ``tokenizer`` was loaded from.

    Raises:
        DataError: nothing in transformers gives the ids of the file.
    """
    file = Path(name, FILE) if Path(name).is_dir() else try_to_load_from_cache(name, FILE)
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return tokenizer
    if not (isinstance(tokenizer, PreTrainedTokenizerFast) and type(tokenizer).__module__.startswith("transformers.")):
        return tokenizer
    own = Tokenizer.from_file(str(file))
    backend = tokenizer.backend_tokenizer
    if backend.get_vocab() == own.get_vocab() and _ids(backend, template=True) == _ids(own, template=True):
        return tokenizer
    plain = PreTrainedTokenizerFast.from_pretrained(name)  # the file, and what tokenizer_config.json says itself
    found, wanted = _ids(plain.backend_tokenizer, template=False), _ids(own, template=False)
    if found != wanted:
        text = next(text for text, ours, theirs in zip(TEXTS, found, wanted, strict=True) if ours != theirs)
        raise DataError(
            f"data.tokenizer.path {name}: transformers gives {text!r} other ids than its {FILE} says: give the path of "
            f"that file instead, and data.tokenizer.eos_token"
        )
    for role in tokenizer.SPECIAL_TOKENS_ATTRIBUTES:  # those that only the class knows
        token = getattr(tokenizer, role, None)
        if isinstance(token, str) and getattr(plain, role) is None and token in plain.get_vocab():
            setattr(plain, role, token)
    return plain


def _ids(tokenizer: Tokenizer, *, template: bool) -> list[list[int] | None]:
    """Of each of `TEXTS`, with what the template adds or without; None where the vocabulary cannot express one."""
    tokenizer.no_truncation()  # transformers sets these three at every call
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return [_encode(tokenizer, text, template) for text in TEXTS]


def _encode(tokenizer: Tokenizer, text: str, template: bool) -> list[int] | None:
    try:
        return list(tokenizer.encode(text, add_special_tokens=template).ids)
    except Exception:  # which is all that tokenizers raises
        return None
