import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from presence_ds.data import TokenizerConfig, load_tokenizer
from presence_ds.data.tokenizer import encode, train_tokenizer
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
