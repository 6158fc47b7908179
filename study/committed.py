"""The runs that committed rows tell of."""

from collections.abc import Mapping
from math import inf
from pathlib import Path

from study.contrasts import Run
from study.plan import Cell
from study.probes import FIGURES
from study.results import CELL, read_tables
from study.rows import WORTH


def runs_of(folder: Path) -> list[Run]:
    """The runs of ``rows.csv``; one that diverged has an infinite loss."""
    return [_run(line) for line in read_tables(folder)[0]]


def _run(line: Mapping[str, str]) -> Run:
    gains, errors = _under("gain/", line), _under("gain_error/", line)
    kinds = Cell.__annotations__
    return Run(
        cell=Cell(**{name: kinds[name](line[name]) for name in CELL}),
        loss=float(line["loss"]) if line["loss"] else inf,
        noise_scale=float(line["noise_scale"]) if line["noise_scale"] else None,
        gains={name: (gain, errors[name]) for name, gain in gains.items()},
        worth=_by_source({figure: _under(f"{figure}/", line) for figure in WORTH}),
        aucs=_by_source({figure: _under(f"auc_{figure}/", line) for figure in FIGURES}),
        tenths={int(number): loss for number, loss in _under("tenth/", line).items()},
        weights=_under("weight/", line),
    )


def _under(prefix: str, line: Mapping[str, str]) -> dict[str, float]:
    """What the columns with ``prefix`` say, where they say something."""
    return {name.removeprefix(prefix): float(text) for name, text in line.items() if name.startswith(prefix) and text}


def _by_source(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    sources = dict.fromkeys(source for values in figures.values() for source in values)
    return {source: {name: values[source] for name, values in figures.items()} for source in sources}
