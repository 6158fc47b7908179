"""A run in which nothing moves any more leaves the stacks of all its ranks and ends.

Ranks train in step, so that one that hangs soon stops all the others, which wait for it in a collective: every rank
need only watch itself. A thread of each rank does. When its rank has made no progress for too long, it writes where it
is to RUN_DIR/stacks/START/rank_N.txt, and tells the watches of the other ranks, also of one that is only slow, to do
the same. Rank 0, or the first rank that has answered if that has not, waits for the reports, reads them, says what it
found, and all end; the others only write. What is there stays as evidence.
"""

import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

import psutil

from presence_ds.trainer.ranks import process_group
from presence_ds.trainer.ranks.failure import Failures
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.rank_log import print_error
from presence_ds.trainer.run_directory.layout import RunDirectory, write_atomically, write_stopped

STATUS = 77  # of a process that ends here, beside those in `presence_ds.errors`
GRACE = 10.0  # seconds in which every rank has written where it is
LONG = 6.0  # times as long may take what is done rarely: the first step, a checkpoint
LOOK = 0.5  # seconds between two looks of each rank that does not read
SHOWN = 4
COLLECTIVES = (os.path.join("torch", "distributed", ""), os.path.join("deepspeed", "comm", ""), process_group.__file__)


@dataclass(frozen=True)
class Report:
    """Where a rank is.

    Attributes:
        step: optimizer step that it has finished last.
        progress: how often it has made progress, which is alike on all ranks.
        idle_seconds: since it has made progress.
        in_collective: whether a thread of it is in a call that waits for other ranks.
        place: function, file and line that its main thread is in.
    """

    rank: int
    host: str
    pid: int
    step: int
    progress: int
    idle_seconds: float
    in_collective: bool
    place: str


class HangWatch:
    """Told by the trainer of every bit of progress; ends the process if there is none for ``seconds``."""

    def __init__(self, ranks: Ranks, directory: RunDirectory, seconds: float | None, failures: Failures) -> None:
        """Nothing is watched if ``seconds`` is None. ``failures`` tells the other ranks of a hang."""
        self.step = 0
        self._ranks = ranks
        self._directory = directory
        self._seconds = seconds
        self._failures = failures
        self._progress = 0
        self._factor = LONG  # until the first step is done
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch; on every rank."""
        if self._seconds is None:
            return
        self._hosts: list[tuple[str, int]] = self._ranks.gather((socket.gethostname(), os.getpid()))
        began = self._ranks.broadcast(time.strftime("%Y%m%d-%H%M%S"))
        self._folder = self._directory.stacks / began
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, args=(self._seconds,), name="hang watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def progress(self, step: int) -> None:
        """The rank has got on; ``step`` optimizer steps are done."""
        if step != self.step and self._progress:
            self._factor = 1.0
        self.step = step
        self._progress += 1

    @contextmanager
    def long(self) -> Iterator[None]:
        """Something inside that may take `LONG` times as long as a step."""
        before, self._factor = self._factor, LONG
        self._progress += 1
        try:
            yield
        finally:
            self._factor = before
            self._progress += 1

    def _watch(self, seconds: float) -> None:
        tick = min(max(seconds / 20, 0.2), 5.0)
        seen, idle, last = self._progress, 0.0, time.monotonic()
        while not self._ended.wait(tick):
            now = time.monotonic()
            idle += min(now - last, 2 * tick)  # not the time in which the whole job was suspended
            last = now
            if self._progress != seen:
                seen, idle = self._progress, 0.0
            if idle >= seconds * self._factor or self._failures.hang.is_set():
                self._end(idle)
            if idle < tick:  # to standard error; it only runs out where code holds Python's lock and this thread waits
                faulthandler.dump_traceback_later(seconds * self._factor + 2 * tick)

    def _end(self, idle: float) -> None:
        """Write a report, read those of all if that is up to this rank, say what they show, and end the process."""
        threading.Thread(target=self._leave_in_time, daemon=True).start()
        threading.Thread(target=self._failures.call_hang, daemon=True).start()  # rank 0 may not answer
        try:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._report(idle)
                if not self._is_reader():  # a launcher ends this one when that one has left
                    _wait(self._directory.stopped.exists, 2 * GRACE, LOOK)
                    return
                reports = self._wait_for_reports()
                message = describe(reports, self._ranks.world_size, self._silent(reports), self._folder)
                message += f"; go on with: presence train {self._directory.recipe}"
            except OSError as error:
                message = f"no progress for {idle:.0f} s after step {self.step}; there are no stacks ({error})"
                if not self._ranks.is_main:
                    return
            print_error(message)
            write_stopped(self._directory, "hang", message, STATUS, self.step)
        finally:
            os._exit(STATUS)

    def _is_reader(self) -> bool:
        """Whether this rank reads the reports; also notes what has become of ranks of its machine without one."""
        if not self._ranks.is_main:
            if _wait(self._directory.stopped.exists, GRACE / 2, LOOK):
                return False
            reported = self._reported()
            host = socket.gethostname()
            here = [rank for rank, (of, _) in enumerate(self._hosts) if of == host]
            if self._ranks.rank == min(reported & set(here)):
                for rank in set(here) - reported:
                    self._note_silent(rank)
            if self._ranks.rank != min(reported):
                return False
        try:
            os.close(os.open(self._folder / "reader", os.O_CREAT | os.O_EXCL))
        except FileExistsError:  # this rank is late
            return False
        return True

    def _reported(self) -> set[int]:
        """The ranks whose reports can be seen."""
        return {int(name[len("rank_") : -len(".txt")]) for name in os.listdir(self._folder) if name.endswith(".txt")}

    def _leave_in_time(self) -> None:
        """End the process also if the file system is what hangs."""
        time.sleep(3 * GRACE)
        print_error("no progress, and the run directory does not answer")
        os._exit(STATUS)

    def _report(self, idle: float) -> None:
        frames = sys._current_frames()
        frame = frames[self._main]
        waits = [_in_collective(frame) for thread, frame in frames.items() if thread != threading.get_ident()]
        host, pid = self._hosts[self._ranks.rank]
        code = frame.f_code
        place = f"{code.co_name}, {code.co_filename}:{frame.f_lineno}"
        report = Report(self._ranks.rank, host, pid, self.step, self._progress, round(idle, 1), any(waits), place)
        path = self._path(report.rank)
        with open(path.with_suffix(".tmp"), "w", encoding="utf-8") as file:
            print(json.dumps(asdict(report)), file=file)
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        os.replace(path.with_suffix(".tmp"), path)

    def _wait_for_reports(self) -> dict[int, Report]:
        """The reports by rank; a rank that has been stopped is woken to write one."""
        reports: dict[int, Report] = {}

        def complete() -> bool:
            with suppress(OSError):
                os.utime(self._folder)  # makes a network file system look again
            for rank in self._reported() - set(reports):
                reports[rank] = Report(**json.loads(self._path(rank).read_text(encoding="utf-8").splitlines()[0]))
            return len(reports) == self._ranks.world_size

        if not _wait(complete, GRACE / 2):
            for rank in self._silent(reports):
                self._note_silent(rank)
            _wait(complete, GRACE / 2)
        return reports

    def _note_silent(self, rank: int) -> None:
        """What the kernel says of another rank's process of this machine."""
        host, pid = self._hosts[rank]
        if host != socket.gethostname():
            return
        state = "gone"
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            state = process.status()
            if state == psutil.STATUS_STOPPED:  # SIGSTOP: now it can write where it is
                state += " by a signal, and was continued to write its stack"
                process.send_signal(signal.SIGCONT)
        write_atomically(self._path(rank).with_suffix(".state"), f"process {pid} on {host} was {state}\n")

    def _silent(self, reports: dict[int, Report]) -> dict[int, str]:
        """What is known of ranks that had not answered at first, by rank."""
        found = {}
        for rank, (host, pid) in enumerate(self._hosts):
            state = self._path(rank).with_suffix(".state")
            if state.exists():
                found[rank] = state.read_text(encoding="utf-8").strip()
            elif rank not in reports:
                found[rank] = f"process {pid} on {host}"
        return found

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank_{rank}.txt"


def collective_timeout(seconds: float | None) -> timedelta | None:
    """How long a collective may take, so that the watch of ``seconds`` comes first; None: DeepSpeed's default."""
    return None if seconds is None else timedelta(seconds=seconds * LONG + 60.0)


def describe(reports: dict[int, Report], world_size: int, silent: dict[int, str], folder: Path) -> str:
    """One line: which ranks differ from the others.

    Those that did not answer at once; else those in no collective where others wait in one; else those that are behind.
    """
    longest = max(report.idle_seconds for report in reports.values())
    behind = [report for report in reports.values() if report.progress < max(r.progress for r in reports.values())]
    outside = [report for report in reports.values() if not report.in_collective]
    if silent:
        culprits = [f"rank {rank} did not answer ({state})" for rank, state in silent.items()]
    elif 0 < len(outside) < world_size:
        culprits = [f"rank {report.rank} is in no collective but in {_where(report)}" for report in outside]
    elif behind:
        culprits = [f"rank {report.rank} is behind, in {_where(report)}" for report in behind]
    else:
        first = reports[min(reports)]
        culprits = [f"no rank differs, rank {first.rank} is in {_where(first)}"]
    more = f" and {len(culprits) - SHOWN} more" if len(culprits) > SHOWN else ""
    step = max(report.step for report in reports.values())
    names = ", ".join(culprits[:SHOWN]) + more
    return f"no progress for {longest:.0f} s after step {step}: {names}; stacks are in {folder}"


def _where(report: Report) -> str:
    return f"{report.place} (last progress {report.idle_seconds:.0f} s ago)"


def _wait(done: Callable[[], bool], seconds: float, poll: float = 0.1) -> bool:
    """Whether ``done()`` within ``seconds``, asked every ``poll`` seconds."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(poll)
    return True


def _in_collective(frame: FrameType) -> bool:
    """Whether one of the calls that led to ``frame`` waits for other ranks."""
    codes = [caller.f_code for caller, _ in traceback.walk_stack(frame)]
    return any(
        any(part in code.co_filename for part in COLLECTIVES)
        or (code.co_name == "wait" and "deepspeed" in code.co_filename)  # ZeRO's handles
        for code in codes
    )
