"""What ranks other than 0 print goes to a file each: a job's log is rank 0's, and stays readable with 1,000 ranks.

The traceback of a rank that fails goes there too, also rank 0's; what ends a run, in a line, is in the job's log.
"""

import io
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from presence_ds.printable import printable

_job_stderr = 2  # descriptor of the standard error that this process was started with
_log: Path | None = None  # of this rank


class RankLog:
    """Inside the ``with`` block, standard output and error of this process, C++ included, are appended to a file.

    A disk without room for what is printed, and a reader that has gone, end no run.
    """

    def __init__(self, path: Path, *, redirected: bool) -> None:
        """The folder of ``path`` exists; unless ``redirected`` only a traceback is written to it."""
        self._path = path
        self._redirected = redirected
        self._saved: list[int] = []
        self._streams: tuple[TextIO, TextIO] = sys.stdout, sys.stderr

    def __enter__(self) -> "RankLog":
        global _job_stderr, _log
        _log = self._path
        self._streams = sys.stdout, sys.stderr
        _flush()
        sys.stdout, sys.stderr = map(_lossy, self._streams)
        if self._redirected:
            try:
                log = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            except OSError as error:
                print(f"presence: warning: {self._path} cannot be written ({error.strerror})", file=sys.stderr)
                return self
            self._saved = [os.dup(1), os.dup(2)]
            _job_stderr = self._saved[1]
            self._point_to(log, log)
            os.close(log)
        return self

    def __exit__(self, *_: object) -> None:
        global _job_stderr
        _flush()
        if self._saved:
            self._point_to(*self._saved)
            _job_stderr = 2
            for descriptor in self._saved:
                os.close(descriptor)
            self._saved = []
        sys.stdout, sys.stderr = self._streams

    def _point_to(self, stdout: int, stderr: int) -> None:
        _flush()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)


class _LossyFile(io.FileIO):
    """Takes what cannot be written for written."""

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        try:
            written: int | None = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def print_error(message: str) -> None:
    """One line of error on the job's standard error, from any rank."""
    print_line(f"presence: error: {message}")


def print_warning(message: str) -> None:
    """One line of warning there."""
    print_line(f"presence: warning: {message}")


def print_line(line: str) -> None:
    """One line there, if there is room for it."""
    with suppress(OSError):
        os.write(_job_stderr, f"{printable(line)}\n".encode(errors="backslashreplace"))


def write_traceback(error: BaseException) -> str:
    """Append the traceback to this rank's log, or without one to the job's standard error; where it is."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if _log is not None:
        with suppress(OSError):
            with open(_log, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return str(_log)
    with suppress(OSError):
        os.write(_job_stderr, text.encode(errors="backslashreplace"))
    return "the lines above"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def _lossy(stream: TextIO) -> TextIO:
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # no file
        return stream
    file = io.BufferedWriter(_LossyFile(number, "wb", closefd=False))  # type: ignore[type-var]  # of its write
    return io.TextIOWrapper(file, stream.encoding, stream.errors, write_through=True, line_buffering=True)
