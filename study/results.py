"""Rows of a study as two small tables, which are committed: one line for each run, and what its loss was on the way."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from presence_ds.errors import ConfigError
from study.plan import Cell
from study.rows import VERSIONS, Row

CELL = [field.name for field in fields(Cell)]
COMMON = ["protocol", *(f"version/{name}" for name in VERSIONS)]
DIGITS = 6  # of numbers that were measured


def read_rows(folder: Path) -> list[Row]:
    """Of the files that `study.runs` writes."""
    rows = [Row(**json.loads(file.read_text(encoding="utf-8"))) for file in sorted(folder.glob("*.json"))]
    return [replace(row, curve=_by_number(row.curve), tenths=_by_number(row.tenths)) for row in rows]


def write_tables(rows: Sequence[Row], folder: Path) -> None:
    """Put ``rows`` into ``rows.csv`` and ``curves.csv``, sorted by cell, beside what is there of other runs.

    Raises:
        ConfigError: they are not all of one protocol and of the same versions of what computes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{name: str(value) for name, value in _flat(row).items()} for row in rows]
    curves = [
        {"key": row.key, "step": str(step), "loss": _rounded(loss)} for row in rows for step, loss in row.curve.items()
    ]
    if (folder / "rows.csv").exists():
        new = {row.key for row in rows}
        lines_there, curves_there = read_tables(folder)
        lines += [line for line in lines_there if line["key"] not in new]
        curves += [line for line in curves_there if line["key"] not in new]
    for line in lines:
        for name in COMMON:
            if line[name] != lines[0][name]:
                raise ConfigError(
                    f"{folder}: run {line['key']} is of {name} {line[name]}, run {lines[0]['key']} of "
                    f"{lines[0][name]}: they do not compare, keep them in a folder each"
                )
    lines.sort(key=lambda line: [line[name] for name in CELL])
    curves.sort(key=lambda line: (line["key"], int(line["step"])))
    _write(folder / "curves.csv", ["key", "step", "loss"], curves)
    _write(folder / "rows.csv", list(dict.fromkeys(name for line in lines for name in line)), lines)


def read_tables(folder: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The lines of ``rows.csv`` and of ``curves.csv``, as text by column.

    Raises:
        ConfigError: they are not there.
    """
    for name in ("rows.csv", "curves.csv"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder / name} is not there: give a folder that `python -m study collect` wrote to")
    return tuple(list(_read(folder / name)) for name in ("rows.csv", "curves.csv"))  # type: ignore[return-value]


def _by_number(losses: dict[Any, float]) -> dict[int, float]:
    """JSON knows no numbers as names."""
    return {int(number): loss for number, loss in losses.items()}


def _flat(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {name: row.cell[name] for name in CELL}
    line |= {"key": row.key, "protocol": row.protocol, "state": row.state}
    line |= {name: _rounded(getattr(row, name)) for name in ("loss", "seconds", "noise_scale", "effective_share")}
    line |= {f"loss/{name}": _rounded(loss) for name, loss in row.losses.items()}
    line |= {f"tenth/{number}": _rounded(loss) for number, loss in row.tenths.items()}
    for name, (gain, error) in row.gains.items():
        line |= {f"gain/{name}": _rounded(gain), f"gain_error/{name}": _rounded(error)}
    line |= {f"weight/{name}": _rounded(weight) for name, weight in row.weights.items()}
    for name, figures in row.worth.items():
        line |= {f"{figure}/{name}": _rounded(value) for figure, value in figures.items()}
    for name, figures in row.aucs.items():
        line |= {f"auc_{figure}/{name}": _rounded(value) for figure, value in figures.items()}
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
