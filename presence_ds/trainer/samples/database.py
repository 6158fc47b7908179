"""DuckDB as runs are read with it: little memory, no network, nothing read but what it is given."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

MEMORY = "300MB"  # what is more goes to the disk
THREADS = 2


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own, which is gone afterwards."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="presence_") as folder:
        settings: dict[str, Any] = {
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": folder,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("set enable_progress_bar = false")
            yield connection


def quoted(name: str) -> str:
    """The name of a column, in SQL."""
    return '"' + name.replace('"', '""') + '"'


def files_of(paths: Iterable[Path]) -> list[str]:
    """Names of files as DuckDB takes them, which would look for patterns in them."""
    return [glob.escape(str(path)) for path in paths]
