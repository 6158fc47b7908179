"""What ranks other than 0 print goes to a file each: a job's log is rank 0's, and stays readable with 1,000 ranks.

What ends a run, an error or a traceback, is in the job's log too.
"""

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

from presence_ds.errors import PresenceError

_job_stderr = 2  # descriptor of the standard error that this process was started with


class RankLog:
    """Inside the ``with`` block, standard output and error of this process, C++ included, are appended to a file."""

    def __init__(self, path: Path | None) -> None:
        """Nothing is redirected if ``path`` is None."""
        self._path = path
        self._saved: list[int] = []

    def __enter__(self) -> "RankLog":
        global _job_stderr
        if self._path is not None:
            self._path.parent.mkdir(exist_ok=True)
            self._saved = [os.dup(1), os.dup(2)]
            _job_stderr = self._saved[1]
            log = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._point_to(log, log)
            os.close(log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _job_stderr
        if self._saved:
            if kind is not None and not issubclass(kind, PresenceError):
                traceback.print_exception(kind, error, trace)
            self._point_to(*self._saved)
            _job_stderr = 2
            for descriptor in self._saved:
                os.close(descriptor)
            self._saved = []

    def _point_to(self, stdout: int, stderr: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)


def print_error(message: str) -> None:
    """One line of error on the job's standard error, from any rank."""
    os.write(_job_stderr, f"presence: error: {message}\n".encode(errors="backslashreplace"))
