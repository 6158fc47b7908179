"""The short form of `python -m benchmarks.gpu`, on whatever device there is, and the parts of it that need none."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.autograd import DeviceType

from benchmarks.gpu.profiling import extra, merged, summary
from benchmarks.gpu.record import Record
from benchmarks.ranks import ROOT

PARTS = ("correctness", "overhead", "trainer", "large", "quickstart")


def run(*arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.long
def test_every_part_runs_and_is_not_run_again(tmp_path: Path) -> None:
    run("--out", str(tmp_path), "--minutes", "20")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    failed = [row for row in rows if "error" in row or row["found"].get("outcome") == "failed"]
    assert not failed, failed
    assert {row["part"] for row in rows} == {"machine", *PARTS}
    by_name = {(row["part"], row["row"], row["setting"].get("stage")): row.get("found") for row in rows}
    assert by_name["overhead", "plain", 2]["ratio"] == 1.0
    assert by_name["overhead", "one_pass_projected", 3]["quartiles"][0] > 0.0
    assert by_name["overhead", "profile", 2]["one_pass_projected"]["kernels"] > 100
    assert by_name["quickstart", "recipes/quickstart.yaml", None]["finished"].startswith("finished: 6 steps")
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.count("\n## ") == len(PARTS)
    run("--out", str(tmp_path), "--minutes", "0.01")  # there would be no time for a row
    assert len((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == len(rows)


def test_without_time_no_row_is_begun(tmp_path: Path) -> None:
    said = run("--out", str(tmp_path), "--minutes", "0", "overhead", "quickstart")
    assert "no time for plain, one_pass_projected" in said
    (line,) = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["row"] == "machine"


def test_an_error_is_a_row_until_the_next_run(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.add("a", "plain", {"stage": 2}, error="out of memory")
    record.add("a", "plain", {"stage": 3}, found={"ratio": 1.0})
    assert record.find("a", "plain", {"stage": 2}) is not None
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"part": "a", "row": "cut sh')
    again = Record(tmp_path)
    assert again.find("a", "plain", {"stage": 2}) is None
    assert again.find("a", "plain", {"stage": 3}) == record.find("a", "plain", {"stage": 3})
    again.add("a", "next", {}, found={})
    assert len(again.of("a")) == 2


def event(name: str, start: float, end: float, device: DeviceType = DeviceType.CUDA) -> Any:
    """As torch's profiler has them."""
    return SimpleNamespace(name=name, device_type=device, time_range=SimpleNamespace(start=start, end=end))


def test_what_a_device_did_is_read_from_its_events() -> None:
    """Two steps: kernels that overlap, a gap of 40 µs and one of 5, launches and waits of the host."""
    host = [event(name, 0, 1, DeviceType.CPU) for name in ("cudaLaunchKernel",) * 6 + ("cudaStreamSynchronize",) * 2]
    found = summary(
        [*host, event("gemm", 0, 30), event("add", 20, 40), event("gemm", 80, 100), event("add", 105, 110)], 2
    )
    assert (found["launches"], found["kernels"], found["synchronisations"]) == (3, 2, 1.0)
    assert found["waits"] == {"cudaStreamSynchronize": 1.0}
    assert (found["span_ms"], found["busy_ms"]) == (0.055, 0.033)  # of 110 and 65 µs, rounded
    assert (found["gaps"], found["gaps_ms"], found["longest_gap_ms"]) == (0, 0.02, 0.04)
    assert found["by_kernel"] == {"gemm": [1.0, pytest.approx(0.025)], "add": [1.0, pytest.approx(0.0125)]}


def test_intervals_that_touch_are_one() -> None:
    assert merged([(5, 6), (0, 2), (2, 3), (1, 2)]) == [(0, 3), (5, 6)]


def test_kernels_are_told_by_what_they_add() -> None:
    rows = extra({"gemm": [4.0, 2.0], "gone": [1.0, 1.0]}, {"gemm": [6.0, 2.5], "sketch": [8.0, 0.8]})
    assert [row["kernel"] for row in rows] == ["sketch", "gemm", "gone"]
    assert rows[0] == {"kernel": "sketch", "plain": 0.0, "ours": 8.0, "extra_ms": 0.8}
    assert rows[2]["extra_ms"] == -1.0
