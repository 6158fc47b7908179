"""Rows of a study as two small tables, which are committed: one line for each run, and what its loss was on the way."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from presence_ds.errors import ConfigError
from study.plan import Cell
from study.rows import Row

CELL = [field.name for field in fields(Cell)]
DIGITS = 6  # of numbers that were measured


def read_rows(folder: Path) -> list[Row]:
    """Of the files that `study.runs` writes.

    Raises:
        ConfigError: they are not all of one protocol.
    """
    rows = []
    for file in sorted(folder.glob("*.json")):
        row = Row(**json.loads(file.read_text(encoding="utf-8")))
        rows.append(replace(row, curve={int(step): loss for step, loss in row.curve.items()}))
    if len(protocols := sorted({row.protocol for row in rows})) > 1:
        raise ConfigError(f"{folder} has rows of protocols {protocols}: remove those that are not of the plan's")
    return rows


def write_tables(rows: Iterable[Row], folder: Path) -> None:
    """``rows.csv`` and ``curves.csv``, sorted by cell."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(rows, key=lambda row: [str(row.cell[name]) for name in CELL])
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for line in flat for name in line))
    _write(folder / "rows.csv", columns, flat)
    curves = (
        {"key": row.key, "step": step, "loss": _rounded(loss)} for row in rows for step, loss in row.curve.items()
    )
    _write(folder / "curves.csv", ["key", "step", "loss"], curves)


def read_tables(folder: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The lines of ``rows.csv`` and of ``curves.csv``, as text by column."""
    return tuple(list(_read(folder / name)) for name in ("rows.csv", "curves.csv"))  # type: ignore[return-value]


def _flat(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {name: row.cell[name] for name in CELL}
    line |= {"key": row.key, "protocol": row.protocol, "state": row.state}
    line |= {name: _rounded(getattr(row, name)) for name in ("loss", "seconds", "noise_scale", "effective_share")}
    line |= {f"loss/{name}": _rounded(loss) for name, loss in row.losses.items()}
    for name, (gain, error) in row.gains.items():
        line |= {f"gain/{name}": _rounded(gain), f"gain_error/{name}": _rounded(error)}
    return line | {f"version/{name}": found for name, found in row.versions.items()}


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}g}"


def _write(file: Path, columns: list[str], lines: Iterable[dict[str, Any]]) -> None:
    part = file.with_suffix(".part")
    with open(part, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    part.replace(file)


def _read(file: Path) -> Iterator[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)
