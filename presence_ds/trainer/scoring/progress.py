"""What rank 0 shows while a corpus is scored: rows, samples per second, time to the end."""

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 30.0  # seconds between two lines where there is no terminal


class ScoringProgress:
    """A bar on a terminal, a line now and then elsewhere; inside the ``with`` block."""

    def __init__(self, console: Console, name: str, rows: int) -> None:
        """``rows`` are to be scored by the checkpoint ``name``, over all ranks."""
        self._console = console
        self._name = name
        self._rows = rows
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            *(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "ScoringProgress":
        self._task = self._bar.add_task(self._name, total=self._rows)
        self._bar.start()
        self._started = self._said = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int) -> None:
        """So many rows are scored by now, over all ranks."""
        pace = done / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(self._task, completed=done, description=f"{self._name}  {pace:,.1f} samples/s")
        if not self._console.is_terminal and time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            remaining = timedelta(seconds=round((self._rows - done) / pace))
            line = f"{self._name}: {done:,} of {self._rows:,} rows  {pace:,.1f} samples/s  ETA {remaining}"
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)
