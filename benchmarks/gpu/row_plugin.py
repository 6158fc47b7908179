"""A plugin of pytest: every test is a row of the record the moment it has ended."""

import os
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import Record

_record = Record(Path(os.environ["GPU_ROWS"]))
_setting = {"device": os.environ["GPU_DEVICE"]}


def pytest_runtest_logreport(report: Any) -> None:
    """Its call, or a set-up that failed or skipped it."""
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        _add(report, report.duration)


def pytest_collectreport(report: Any) -> None:
    """A file that cannot be imported, or is skipped as a whole."""
    if report.outcome != "passed":
        _add(report, 0.0)


def _add(report: Any, seconds: float) -> None:
    text = ""
    if report.outcome == "skipped":
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    elif report.outcome == "failed":
        text = report.longreprtext[-3000:]
    found = {"outcome": report.outcome, "seconds": round(seconds, 2), "text": text}
    _record.add("correctness", report.nodeid, _setting, found=found)
