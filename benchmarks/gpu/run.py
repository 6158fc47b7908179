"""What every part is given: where rows go, and the time that is left for them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import Record, Row
from benchmarks.ranks import ROOT, rendezvous

SAID = 3000  # characters of a failed process's output that a row keeps


@dataclass(frozen=True)
class Part:
    """A part of the command.

    Attributes:
        title: of its table.
        run: makes the rows that are missing; ``run(it, name)``.
        report: rows to markdown.
        needs: modules without which it cannot run.
    """

    title: str
    run: Callable[["Run", str], None]
    report: Callable[[list[Row]], str]
    needs: Sequence[str] = ()


@dataclass
class Run:
    """One run of the command.

    Attributes:
        tiny: whether everything is to be small enough for seconds on a CPU.
        device: its name; part of every row's setting.
        deadline: by `time.monotonic`, until when rows are begun, and when those in progress are ended.
    """

    record: Record
    tiny: bool
    device: str
    deadline: float

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def row(self, part: str, name: str, setting: dict[str, Any], measure: Callable[[], Any], least_s: float) -> None:
        """Measure a row unless it is there, or less than ``least_s`` seconds are left; what fails is a row too."""
        setting = setting | {"device": self.device}
        if self.record.find(part, name, setting) is not None:
            return
        if self.left() < least_s:
            print(f"{part}: no time for {name}, which takes about {least_s:.0f} s", flush=True)
            return
        try:
            found = measure()
        except Exception as error:
            self.record.add(part, name, setting, error=str(error)[-SAID:])
        else:
            self.record.add(part, name, setting, found=found)

    def python(
        self, *arguments: str, most_s: float, environment: dict[str, str] | None = None, may_fail: bool = False
    ) -> str:
        """What ``python ARGUMENTS`` prints, in the root of the repository, with the environment of a rank alone.

        It and all that it has started are ended when ``most_s`` seconds are over, or those until the deadline.

        Raises:
            RuntimeError: it failed, unless it may, or was ended; the message has the end of its output.
        """
        log = self.record.folder / "output.log"
        seconds = max(1.0, min(most_s, self.left()))
        with log.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=os.environ | (rendezvous(1)[0] if environment is None else environment),
                cwd=ROOT,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status: int | str = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = f"ended after {seconds:.0f} s"
            finally:
                _end_group(process)
        said = log.read_text(encoding="utf-8", errors="replace")
        if status != 0 and not (may_fail and isinstance(status, int)):
            raise RuntimeError(f"{' '.join(arguments[:4])}: {status}\n{said[-SAID:]}")
        return said


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def folder_of(run: Run, name: str) -> Path:
    """A folder for what a part leaves beside its rows."""
    folder = run.record.folder.resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
