"""The short form of `python -m benchmarks.streaming`."""

import json
from pathlib import Path

from benchmarks.streaming import measure, report
from presence_ds.data import TokenizerConfig
from presence_ds.data.tokenizer.training import train_tokenizer
from tests.data.conftest import make_text


def test_every_way_is_clocked(tmp_path: Path) -> None:
    texts = [make_text(number) for number in range(200)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    train_tokenizer(TokenizerConfig(vocab_size=400), texts).save_pretrained(tmp_path / "tokenizer")
    found = measure(tmp_path / "text.jsonl", str(tmp_path / "tokenizer"), 32, 64, [0, 1])
    assert list(found) == ["prepare", "prepared", "streamed, 0 workers", "streamed, 1 workers"]
    assert all(clocked["tokens_per_second"] > 0 for clocked in found.values())
    assert f"{found['prepare']['tokens_per_second']:,.0f}" in report(found).splitlines()[2]
