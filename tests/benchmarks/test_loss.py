"""The short form of `python -m benchmarks.loss`."""

from pathlib import Path

import torch

from benchmarks.loss import compare


def test_both_losses_are_measured(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("before\n<!-- loss -->\n<!-- /loss -->\nafter\n")
    compare([(2, 8, 300)], repeats=3, threads=torch.get_num_threads(), document=document)
    lines = [line for line in document.read_text().splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[1] for line in lines[2:]] == ["2 × 8 × 300", "2 × 8 × 300"]
    assert all(float(line.split(" | ")[-1].rstrip(" |")) > 0 for line in lines[2:])
