"""Signals and the wall clock: noted while the run trains, obeyed at once while it is being set up."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import psutil

from presence_ds.errors import Stopped
from presence_ds.trainer.ranks.stop_config import StopConfig


class StopSignals:
    """Handlers of the signals that stop a run, and of the alarm that ends its time; from the main thread only.

    A process whose launcher blocked the signals (`presence_ds.launch.launcher`) takes them from `__enter__` on, and
    none that came before is lost. Once the run has been stopped they are ignored: nothing is left to be done.

    Attributes:
        numbers: of the signals that stop the run; SIGALRM stands for the wall clock.
        received: number of the first signal that came; None so far.
    """

    def __init__(self, config: StopConfig) -> None:
        """``config`` is validated."""
        self.received: int | None = None
        self._raises = self._leaves = False
        self._before: dict[int, Any] = {}
        self.numbers = config.signal_numbers
        self._seconds = config.wall_clock_seconds

    def __enter__(self) -> "StopSignals":
        if self._seconds is not None:
            self.numbers = [*self.numbers, signal.SIGALRM]
            elapsed = time.time() - psutil.Process().create_time()
            signal.setitimer(signal.ITIMER_REAL, max(self._seconds - elapsed, 0.001))  # 0 would turn it off
        self._before = {number: signal.signal(number, self._handle) for number in self.numbers}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.numbers)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        stopped = kind is not None and issubclass(kind, Stopped)
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if stopped else before)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """A part of the set-up that may be left anywhere: a signal, also an earlier one, raises `Stopped` in it."""
        try:
            self._raises = True
            if self.received is not None:
                raise stopped_in_setup(self.received)
            yield
        finally:
            self._raises = False

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """A wait of the set-up for other ranks: a signal ends this process, and its launcher then ends the others."""
        try:
            self._leaves = True
            yield
        finally:
            self._leaves = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        if self._leaves:
            os._exit(Stopped.status)
        if self._raises:
            self._raises = False  # what is now undone is not to be cut short by a second signal
            raise stopped_in_setup(self.received)


def stopped_in_setup(number: int) -> Stopped:
    """The error that ends a run before its first step."""
    return Stopped(
        f"stopped by {describe(number)} before the first step; the same command starts it again", reason(number)
    )


def describe(number: int) -> str:
    """A signal in words."""
    return "stop.wall_clock" if number == signal.SIGALRM else signal.Signals(number).name


def reason(number: int) -> str:
    """`Stopped.reason` of a signal."""
    return "wall_clock" if number == signal.SIGALRM else "signal"
