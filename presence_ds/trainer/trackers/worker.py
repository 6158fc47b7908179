"""A thread for each tracker. Nothing in it that fails or hangs ends a run, or holds it up.

A tracker has one history, however often the run is resumed: at every start it is given the lines that it does not have,
under their optimizer steps.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trackers.alerts import Alerts, stalled
from presence_ds.trainer.trackers.history import Lowest, history
from presence_ds.trainer.trackers.tracker import Line, Tracker

CLOSE_TIMEOUT = 60.0  # seconds that the end of a run waits for all trackers together
ABANDON_TIMEOUT = 5.0  # seconds that it then waits for those that it has given up
MOST_WAITING = 10_000  # logged lines that a tracker may be behind


class Worker:
    """Does everything that concerns one tracker, so that training waits for nothing but its end."""

    def __init__(
        self,
        tracker: Tracker,
        directory: RunDirectory,
        resolved: dict[str, Any],
        warn: Callable[[str], None],
        signals: Sequence[int] = (),
        stall_minutes: float | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            resolved: shown as the run's configuration.
            warn: takes a line about a failure, also from the thread.
            signals: numbers of those that a process of the tracker's own is to ignore: SLURM sends them to every
                process of a job, and the last steps are still to be written then. SIGTERM it takes in any case.
            stall_minutes: without a line for as long there is an alert; None: no alerts of any kind.
        """
        self._tracker = tracker
        self._directory = directory
        self._resolved = resolved
        self._warn = warn
        self._signals = signals
        self._stall_minutes = stall_minutes
        self._alerts = Alerts()
        self._lowest = Lowest()
        self._waiting: queue.Queue[Line | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=tracker.name, daemon=True)
        self._first_step = 1
        self._last = 0
        self._failed = False

    @property
    def is_alive(self) -> bool:
        """Whether it takes lines, or is about to end."""
        return self._thread.is_alive()

    def begin(self, first_step: int) -> None:
        """Begin; ``first_step`` is the first that is still to be trained."""
        self._first_step = first_step
        self._thread.start()

    def put(self, line: Line) -> None:
        """Have a line logged when it is its turn."""
        if self.is_alive:
            try:
                self._waiting.put_nowait(line)
            except queue.Full:
                self._fail(f"it is {MOST_WAITING} lines behind")
                self._tracker.abandon()

    def end(self) -> None:
        """There are no more lines."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)

    def join(self, deadline: float) -> None:
        """Wait for the thread, where one has begun, up to ``deadline``, a time of `time.monotonic`."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def give_up(self) -> None:
        """Say that it has not ended in time, and have it end."""
        self._fail(f"it has not ended within {CLOSE_TIMEOUT:g} s")
        self._tracker.abandon()

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)  # a process that is started here has them blocked too
        try:
            self._write()
        except Exception as error:
            self._fail(" ".join(str(error).split()) or repr(error))
        finally:
            self._tracker.tear_down()

    def _write(self) -> None:
        tracker = self._tracker
        last = tracker.start(self._resolved, self._first_step)
        if last is None:
            return
        self._last = last
        if last >= self._first_step:
            self._warn(f"{tracker.name} has the steps up to {last} already and does not take them again")
        for line in history(self._directory, before=self._first_step):
            self._alerts.of(line.figures)
            self._log(self._lowest.of(line))
        tracker.caught_up()
        for line in self._live():
            found = self._alerts.of(line.figures)
            self._log(self._lowest.of(line))
            if self._stall_minutes is not None:
                for alert in found:
                    tracker.alert(*alert)
        tracker.finish()

    def _live(self) -> Iterator[Line]:
        """Lines as they come, until there are no more."""
        while True:
            line = self._next()
            if line is None:
                return
            yield line

    def _next(self) -> Line | None:
        if self._stall_minutes is not None:
            try:
                return self._waiting.get(timeout=self._stall_minutes * 60)
            except queue.Empty:
                self._tracker.alert(*stalled(self._last, self._stall_minutes))
        return self._waiting.get()

    def _log(self, line: Line) -> None:
        if line.step <= self._last:
            return
        self._tracker.log(line._replace(samples=self._own(line)))
        self._last = line.step

    def _own(self, line: Line) -> list[dict[str, Any]] | None:
        """The table of ``line`` as the tracker is to have it."""
        config = self._tracker.config
        if line.samples is None or not is_due(config.table_every, line.step, self._last):
            return None
        if config.sample_text:
            return line.samples
        return [{name: value for name, value in row.items() if name != "text"} for row in line.samples]

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._warn(f"{self._tracker.name} is off for the rest of this run: {why}")


def close(workers: Sequence[Worker]) -> None:
    """Have what waits logged, and wait for the end of all at once, but not for ever."""
    for worker in workers:
        worker.end()
    deadline = time.monotonic() + CLOSE_TIMEOUT
    for worker in workers:
        worker.join(deadline)
    late = [worker for worker in workers if worker.is_alive]
    for worker in late:
        worker.give_up()
    deadline = time.monotonic() + ABANDON_TIMEOUT
    for worker in late:
        worker.join(deadline)


def is_due(every: int | None, step: int, before: int) -> bool:
    """Whether a multiple of ``every`` (None: of nothing) lies after step ``before`` and not after ``step``."""
    return every is not None and step // every > before // every
