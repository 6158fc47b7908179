"""A metrics file of any size is read at a few places, and what is half-written is passed over."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from presence_ds.trainer.status import metrics_lines
from presence_ds.trainer.status.metrics_lines import last_line, spread_lines


def write(path: Path, steps: int, ending: str = "") -> Path:
    """Lines of very different lengths; every tenth has a validation loss."""
    lines = []
    for step in range(1, steps + 1):
        line = {"step": step, "loss": 8.0 - step / steps, "padding": "x" * (step * 37 % 400)}
        if step % 10 == 0:
            line["validation/loss"] = 9.0 - step / steps
        lines.append(json.dumps(line) + "\n")
    path.write_text("".join(lines) + ending)
    return path


@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
@pytest.mark.parametrize(
    "ending", ["", '{"step": 1', '{"step": 200, "loss": 1.0}', "\x00\xff\n", "[1]\n\n", '{"step": "a"}\n']
)
def test_last_line(block: int, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_lines, "BLOCK", block)
    path = write(tmp_path / "metrics.jsonl", 125, ending)
    last, validation = last_line(path), last_line(path, "validation/loss")
    assert last is not None
    assert last["step"] == (200 if "200" in ending else 125)
    assert validation is not None
    assert validation["step"] == 120


def test_nothing_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_line(path) is None
    assert spread_lines(path, 10) == []
    for content in ("", "\n", "{", '{"loss": 1}\n'):
        path.write_text(content)
        assert last_line(path) is None
        assert spread_lines(path, 10) == []
    write(path, 100)
    monkeypatch.setattr(metrics_lines, "FARTHEST", 300)
    assert last_line(path, "nothing/of/it") is None


def test_lines_are_spread_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", 1000, '{"step": 1001, "lo')
    steps = [line["step"] for line in spread_lines(path, 11)]
    assert (steps[0], steps[-1]) == (1, 1000)
    assert steps == sorted(set(steps))
    assert all(80 < after - before < 120 for before, after in pairwise(steps))
    few = write(tmp_path / "few.jsonl", 3)
    assert [line["step"] for line in spread_lines(few, 50)] == [1, 2, 3]
