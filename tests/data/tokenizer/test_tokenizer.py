import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from presence_ds.data import TokenizerConfig, load_tokenizer
from presence_ds.data.tokenizer.config import BOS
from presence_ds.data.tokenizer.encoding import document_start, encode
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import DataError

TEXTS = ["the cat sat on the mat", "the dog sat on the log"] * 20
TRAINED = train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS)


def error_of(config: TokenizerConfig) -> str:
    with pytest.raises(DataError) as caught:
        load_tokenizer(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(st.text())
def test_trained_tokenizer_encodes_any_text_exactly(text: str) -> None:
    (tokens,) = encode(TRAINED, [text])
    assert TRAINED.decode(tokens, clean_up_tokenization_spaces=False) == text


def test_trained_tokenizer_is_deterministic_and_compresses() -> None:
    again = train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS)
    assert again.get_vocab() == TRAINED.get_vocab()
    assert len(TRAINED) <= 300
    assert len(encode(TRAINED, ["the cat"])[0]) == 2


def test_name_of_a_special_token_in_a_text_stays_text() -> None:
    (tokens,) = encode(TRAINED, ["one <|endoftext|> two"])
    assert TRAINED.eos_token_id not in tokens
    assert TRAINED.decode(tokens) == "one <|endoftext|> two"


def test_folder_and_file_load_the_same_tokenizer(tmp_path: Path) -> None:
    TRAINED.save_pretrained(tmp_path / "folder")
    folder = load_tokenizer(TokenizerConfig(path=str(tmp_path / "folder")))
    file = load_tokenizer(TokenizerConfig(path=str(tmp_path / "folder/tokenizer.json"), eos_token="<|endoftext|>"))
    assert folder.eos_token_id == file.eos_token_id == TRAINED.eos_token_id
    assert encode(folder, TEXTS) == encode(file, TEXTS) == encode(TRAINED, TEXTS)


def test_no_eos_token(tmp_path: Path) -> None:
    TRAINED.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = str(tmp_path / "tokenizer.json")
    assert error_of(TokenizerConfig(path=path)) == (
        f"data.tokenizer.path {path} has no EOS token: set data.tokenizer.eos_token to one it has"
    )
    assert error_of(TokenizerConfig(path=path, eos_token="</s>")) == (
        f"data.tokenizer.eos_token </s> is not in the vocabulary of {path}"
    )


def test_no_eos_token_in_a_folder(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path)
    assert "has no EOS token" in error_of(TokenizerConfig(path=str(tmp_path)))
    assert load_tokenizer(TokenizerConfig(path=str(tmp_path), eos_token="the")).eos_token_id == 0


def test_unloadable_tokenizers_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    for path in (str(broken), str(tmp_path), "./no/such/folder"):
        assert f"data.tokenizer.path {path} cannot be loaded as a tokenizer: " in error_of(TokenizerConfig(path=path))


def test_code_of_a_tokenizer_runs_only_when_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    TRAINED.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "OwnTokenizer"
    settings["auto_map"] = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "own.py").write_text(
        "import pathlib\nfrom transformers import PreTrainedTokenizerFast\n"
        f"pathlib.Path({str(tmp_path)!r}, 'ran').touch()\n"
        "class OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    assert "trust_remote_code" in error_of(TokenizerConfig(path=str(tmp_path)))
    assert not (tmp_path / "ran").exists()
    load_tokenizer(TokenizerConfig(path=str(tmp_path), trust_remote_code=True))
    assert (tmp_path / "ran").exists()


DIGITS = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
LETTERS = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(r"\p{L}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)


def write_folder(folder: Path, kind: str, **parts: object) -> Tokenizer:
    """A folder as those on the hub, whose tokenizer.json has ``parts`` that the class ``kind`` does not expect."""
    own = Tokenizer.from_str(TRAINED.backend_tokenizer.to_str())
    for name, part in parts.items():
        setattr(own, name, part)
    folder.mkdir()
    own.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": kind, "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return own


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("GPT2Tokenizer", {"pre_tokenizer": DIGITS}),
        ("GPT2Tokenizer", {"normalizer": normalizers.Lowercase()}),
        ("Qwen2Tokenizer", {"pre_tokenizer": LETTERS}),
        ("LlamaTokenizer", {}),
        ("RobertaTokenizer", {"pre_tokenizer": DIGITS}),
    ],
)
def test_ids_are_those_of_the_file_where_transformers_rebuilds_it(
    kind: str, parts: dict[str, object], tmp_path: Path
) -> None:
    own = write_folder(tmp_path / "folder", kind, **parts)
    texts = ["the cat 1977 sat", "The\n\n  DOG  on the mat", "log: 3,000.50"]
    wanted = [encoding.ids for encoding in own.encode_batch(texts, add_special_tokens=False)]
    loaded = load_tokenizer(TokenizerConfig(path=str(tmp_path / "folder")))
    assert encode(loaded, texts) == wanted
    assert loaded.eos_token == "<|endoftext|>"
    loaded.save_pretrained(tmp_path / "again")
    assert encode(load_tokenizer(TokenizerConfig(path=str(tmp_path / "again"))), texts) == wanted
    assert encode(AutoTokenizer.from_pretrained(tmp_path / "again"), texts) == wanted


def test_folder_that_contradicts_its_file_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", "GPT2Tokenizer", pre_tokenizer=DIGITS)
    settings = json.loads((tmp_path / "folder/tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {"300": {"content": "fox", "special": False, "normalized": False}}
    (tmp_path / "folder/tokenizer_config.json").write_text(json.dumps(settings))
    assert "other ids than its tokenizer.json says" in error_of(TokenizerConfig(path=str(tmp_path / "folder")))


def with_template() -> PreTrainedTokenizerBase:
    words = Tokenizer(models.WordLevel({"</s>": 0, "<s>": 1, "the": 2, "cat": 3}))  # no unknown token
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")


def bert() -> PreTrainedTokenizerBase:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]
    return BertTokenizer(vocab={name: index for index, name in enumerate(names)}, eos_token="[SEP]")


@pytest.mark.parametrize(
    ("make", "start", "text"), [(with_template, [1], [2, 3]), (bert, [2], [5, 6]), (lambda: TRAINED, [], None)]
)
def test_documents_start_as_the_template_says(
    make: object, start: list[int], text: list[int] | None, tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer = load_tokenizer(TokenizerConfig(path=str(tmp_path)))
    assert document_start(tokenizer) == start
    text = text or encode(TRAINED, ["the cat"])[0]
    assert encode(tokenizer, ["the cat", ""]) == [[*start, *text], []]  # nothing comes before no text


def test_field_overrules_the_template_and_is_saved(tmp_path: Path) -> None:
    with_template().save_pretrained(tmp_path / "with")
    without = load_tokenizer(TokenizerConfig(path=str(tmp_path / "with"), add_bos=False))
    assert encode(without, ["the cat"]) == [[2, 3]]
    without.save_pretrained(tmp_path / "without")
    assert encode(load_tokenizer(TokenizerConfig(path=str(tmp_path / "without"))), ["the cat"]) == [[2, 3]]
    again = load_tokenizer(TokenizerConfig(path=str(tmp_path / "without"), add_bos=True))
    assert encode(again, ["the cat"]) == [[1, 2, 3]]


def test_trained_tokenizer_gets_a_token_of_its_own_for_bos(tmp_path: Path) -> None:
    trained = train_tokenizer(TokenizerConfig(vocab_size=300, add_bos=True), TEXTS)
    assert (trained.bos_token, trained.eos_token) == (BOS, "<|endoftext|>")
    trained.save_pretrained(tmp_path)
    for tokenizer in (trained, load_tokenizer(TokenizerConfig(path=str(tmp_path)))):
        assert [ids.index(tokenizer.bos_token_id) for ids in encode(tokenizer, TEXTS)] == [0] * len(TEXTS)
        assert tokenizer("the cat")["input_ids"] == encode(tokenizer, ["the cat"])[0]  # as it will be used


def test_bos_that_a_tokenizer_does_not_have(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=TRAINED.backend_tokenizer, eos_token="<|endoftext|>").save_pretrained(
        tmp_path
    )
    assert error_of(TokenizerConfig(path=str(tmp_path), add_bos=True)) == (
        f"data.tokenizer.add_bos is true, and the tokenizer {tmp_path} has no BOS token: leave it out"
    )
