"""metrics.jsonl where lines cannot be written."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.callbacks.metrics_file import MetricsFile
from presence_ds.trainer.ranks import rank_log


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel writes as much as fits and refuses the rest, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def log(file: MetricsFile, step: int) -> None:
    trainer: Any = None
    file.on_log(trainer, {"step": step, "loss": float("nan")})


@pytest.mark.parametrize("room", [0, 7])
def test_lines_wait_and_no_half_line_stays(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()  # which has no such limit
    monkeypatch.setattr(rank_log, "_job_stderr", write)
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    log(file, 1)
    whole = path.read_bytes()
    with no_file_above(len(whole) + room):
        log(file, 2)
        log(file, 3)
        assert path.read_bytes() == whole
    log(file, 4)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": step, "loss": None} for step in (1, 2, 3, 4)
    ]
    with no_file_above(path.stat().st_size + room):
        log(file, 5)
        log(file, 6)
        file.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
    os.close(write)
    with open(read) as printed:
        first, second, last = printed.read().splitlines()
    assert first == second
    assert first.endswith("metrics.jsonl cannot be written (File too large); training goes on, and lines wait")
    assert last.endswith("metrics.jsonl lacks its last 2 lines, which could not be written")
