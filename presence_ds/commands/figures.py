"""Figures of a command: a table, and JSON where it is asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from presence_ds.errors import ConfigError


def add_json_option(parser: ArgumentParser) -> None:
    """``--json FILE``."""
    parser.add_argument("--json", type=str | None, default=None, help="File to write all figures to; - prints them.")


def show(figures: dict[str, Any], file: str | None, print_table: Callable[[], None]) -> None:
    """Print the table, and write ``figures`` to ``file``; of ``-`` print them instead.

    Raises:
        ConfigError: the file cannot be written.
    """
    if file == "-":
        print(json.dumps(figures, indent=2))
        return
    print_table()
    if file is not None:
        from presence_ds.trainer.run_directory.layout import write_json

        try:
            write_json(Path(file), figures)
        except OSError as error:
            raise ConfigError(f"json is {file}: it cannot be written ({error.strerror})") from None
