"""What is not streamed: states of another order, fields, and text that cannot be used."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from presence_ds.data import NoiseConfig, SourceConfig, StreamingConfig, TokenizerConfig
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import ConfigError, DataError
from tests.data.streaming.streams import MakeConfig, group_of, take, the_state


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 6}, "seed = 5 and this run has 6"),
        ({"packing": "document"}, "packing = concat and this run has document"),
        ({"streaming": StreamingConfig(lanes=2, buffer_samples=3)}, "streaming = .*4.* and this run has .*2"),
    ],
)
def test_the_state_of_another_order_is_refused(
    fields: dict[str, Any], message: str, make: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    state = the_state(group_of(make(), tokenizer))
    with pytest.raises(DataError, match=message):
        group_of(make(**fields), tokenizer, state=state)


def test_the_state_on_other_text_is_refused(make: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    config = make()
    state = the_state(group_of(config, tokenizer))
    other = train_tokenizer(TokenizerConfig(vocab_size=400), ["another text"] * 9)
    with pytest.raises(DataError, match="digest of the tokenizer"):
        group_of(config, other, state=state)
    with Path(str(config.sources[1].path)).open("a") as more:
        more.write('{"id": "c", "text": "one more"}\n')
    with pytest.raises(DataError, match="digest of the files"):
        group_of(config, tokenizer, state=state)


REFUSED = {
    "lanes": ({"streaming": StreamingConfig(lanes=0)}, "data.streaming.lanes is 0: it must be at least 1"),
    "buffer": ({"streaming": StreamingConfig(buffer_samples=0)}, "data.streaming.buffer_samples is 0"),
    "tokenizer": ({"streaming": StreamingConfig(tokenizer_megabytes=0)}, "data.streaming.tokenizer_megabytes is 0"),
    "prepared": ({"prepared": "folder"}, "data.prepared is folder with data.streaming: it must be null"),
    "noise": ({"noise": [NoiseConfig()]}, "data.noise is .* with data.streaming: it must be null"),
    "held out": ({"validation_fraction": 0.01}, "data.validation_fraction is 0.01 with data.streaming"),
    "weights": (
        {"sources": [SourceConfig("a", "a"), SourceConfig("b", "b")]},
        r"data.sources\[0\].weight is not set with data.streaming",
    ),
    "packages": (
        {"sources": [SourceConfig("a", format="python_packages")]},
        r"data.sources\[0\].format is python_packages with data.streaming",
    ),
    "limit": ({"sources": [SourceConfig("a", "a", max_megabytes=3)]}, "max_megabytes is 3 with data.streaming"),
    "minimum": ({"sources": [SourceConfig("a", "a", min_megabytes=3)]}, "min_megabytes is 3 with data.streaming"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_not_streamed_is_refused(case: str, make: MakeConfig) -> None:
    fields, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        make(**fields)


def test_bad_rows_are_skipped_up_to_their_share(
    make: MakeConfig, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(str(make().sources[1].path))
    with path.open("a") as file:
        file.write('{"id": "bad"}\n' * 7)
    source = [SourceConfig("b", str(path), id_field="id")]
    take(group_of(make(sources=source, max_bad_share=0.2), tokenizer), 20)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 5
    assert "presence: warning: skipped" in warnings[0]
    assert 'field "text" is missing or null' in warnings[0]
    with pytest.raises(DataError, match=r"rows cannot be used, more than max_bad_share 0.01 allows; the first is"):
        take(group_of(make(sources=source), tokenizer), 20)


def test_a_wrong_field_is_found_at_once(make: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    source = [SourceConfig("b", make().sources[1].path, text_field="body")]
    (batches,) = group_of(make(sources=source, max_bad_share=1.0), tokenizer)
    with pytest.raises(DataError, match=r'rows can be used; the first is .* field "body" is missing or null'):
        batches.prime()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_file_stops_or_is_left_out(
    num_workers: int, make: MakeConfig, tokenizer: PreTrainedTokenizerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(str(make().sources[0].path))
    whole = gzip.compress((folder / "1.jsonl").read_bytes())
    (folder / "1.jsonl").unlink()
    (folder / "1.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    source = [SourceConfig("a", str(folder), id_field="id")]
    message = r"1.jsonl.gz cannot be read as a file: it ends in the middle of its compressed data \(\d+ good rows"
    (batches,) = group_of(make(sources=source, num_workers=num_workers), tokenizer)
    with pytest.raises(DataError, match=message):
        take([batches], 300)
    skipping = make(sources=source, on_bad_file="skip", num_workers=num_workers)
    taken = take(group_of(skipping, tokenizer), 300)
    parts = Counter(int(document[1:]) % 3 for _, document, _, _ in taken)
    assert 0 < parts[1] < min(parts[0], parts[2])
    assert "presence: warning: left out" in capfd.readouterr().err


def test_sources_without_text_are_refused(make: MakeConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "one.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "bad.jsonl.gz").write_bytes(b"")
    for name, on_bad_file, message in (
        ("empty.jsonl", "stop", 'source "s" has no document on one of the lanes: give it more text, or lower data.str'),
        ("one.jsonl", "stop", 'source "s" has no document on one of the lanes'),
        ("bad.jsonl.gz", "skip", 'source "s": a lane has no file that can be read; the first that cannot is'),
    ):
        config = make(sources=[SourceConfig("s", str(tmp_path / name))], on_bad_file=on_bad_file)
        (batches,) = group_of(config, tokenizer)
        with pytest.raises(DataError, match=message):
            batches.prime()
