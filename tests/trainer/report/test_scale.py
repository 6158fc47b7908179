"""A long run's report takes little memory, and is no large page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import write_run
from presence_ds.trainer.report.page.page import render
from presence_ds.trainer.report.report import make_report
from tests.trainer.conftest import ROOT

MEASURE = """
import re, sys, threading, time
from pathlib import Path
from presence_ds.trainer.report.report import make_report

most = 0
def watch():
    global most
    while True:
        most = max(most, int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
make_report([Path(sys.argv[1])])
print("most:", most)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """Eight times the steps and records, and not twice the memory; the page has its limit."""
    most = []
    for steps in (2_000, 16_000):
        run = tmp_path / str(steps)
        write_run(run, steps, 100)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, run], cwd=ROOT, capture_output=True, text=True, check=True
        )
        most.append(int(re.search(r"most: (\d+)", done.stdout)[1]) / 2**20)  # type: ignore[index]
    assert most[1] < 1.0
    assert most[1] < 2.0 * most[0]
    assert len(render(make_report([tmp_path / "16000"])).encode()) < 8_000_000
