"""Long-running calls that take turns in one process: each in a thread of its own, of which only one runs at a time."""

from collections.abc import Callable
from threading import Semaphore, Thread


class Turns:
    """A call that rests whenever it says so, and goes on when it is told to."""

    def __init__(self, call: Callable[[Callable[[], None]], None]) -> None:
        """``call`` is given what it has to call in order to rest; it begins with the first `go_on`."""
        self._go, self._rested = Semaphore(0), Semaphore(0)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Let it run until it rests again or ends; raises what it raised."""
        self._go.release()
        self._rested.acquire()
        if self._error is not None:
            raise self._error

    def _run(self, call: Callable[[Callable[[], None]], None]) -> None:
        self._go.acquire()
        try:
            call(self._rest)
        except BaseException as error:
            self._error = error
        self._rested.release()

    def _rest(self) -> None:
        self._rested.release()
        self._go.acquire()
