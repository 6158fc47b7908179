"""Figures of logged steps, in bins of steps; of a group of runs, the mean and the range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from presence_ds.trainer.report.figures import Curve, Number
from presence_ds.trainer.report.plain import plain, plain_list
from presence_ds.trainer.samples.database import quoted

if TYPE_CHECKING:
    import duckdb

CURVE_BINS = 400  # at most
AT_ONCE = 32  # columns in one query


def curves_of(connection: duckdb.DuckDBPyConnection, names: Sequence[str], tokens: str) -> dict[str, Curve]:
    """A curve of every column ``names`` of the table ``lines``; bins in which it has no figure are left out.

    Of the validation split a bin has the last figure in the place of the mean. Bins are powers of two wide, so that
    those of a run are among those of a longer one, which its mean is taken with.

    Args:
        tokens: in SQL, those at a step.
    """
    span = connection.execute("select min(step), max(step) from lines").fetchone()
    assert span is not None
    width = 1
    while (span[1] - 1) // width - (span[0] - 1) // width >= CURVE_BINS:
        width *= 2
    found = {}
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        figures = [", ".join(_figures(name, tokens)) for name in part]
        rows = connection.execute(
            f"select {', '.join(figures)} from lines group by (step - 1) // {width} order by max(step)"
        ).fetchall()
        for number, name in enumerate(part):
            kept = [own for row in rows if (own := row[6 * number : 6 * number + 6])[0] is not None]
            found[name] = Curve(
                step=[row[0] for row in kept],
                tokens=[None if row[1] is None else int(row[1]) for row in kept],
                hours=plain_list([row[2] for row in kept]),
                mean=plain_list([row[3] for row in kept]),
                low=plain_list([row[4] for row in kept]),
                high=plain_list([row[5] for row in kept]),
            )
    return found


def _figures(name: str, tokens: str) -> list[str]:
    """Of a bin, where it has the figure: step, tokens and hours of the last one, mean (or the last), least, most."""
    known, column = f"filter ({quoted(name)} is not null)", quoted(name)
    middle = f"arg_max({column}, step)" if name.startswith("validation/") else f"avg({column})"
    last = [f"max(step) {known}", f"arg_max({tokens}, step) {known}", f"arg_max(hours, step) {known}"]
    return [*last, middle, f"min({column})", f"max({column})"]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of ``curves`` at the steps that all of them have, with the range of them."""
    places = [{step: place for place, step in enumerate(curve.step)} for curve in curves]
    steps = [step for step in curves[0].step if all(step in place for place in places)]
    rows = [[curve.mean[place[step]] for curve, place in zip(curves, places, strict=True)] for step in steps]
    known = [[value for value in row if value is not None] for row in rows]
    return Curve(
        step=steps,
        tokens=[curves[0].tokens[places[0][step]] for step in steps],
        hours=[
            _mean([curve.hours[place[step]] for curve, place in zip(curves, places, strict=True)]) for step in steps
        ],
        mean=[_mean(row) for row in known],
        low=[min(row, default=None) for row in known],
        high=[max(row, default=None) for row in known],
    )


def _mean(values: Sequence[Number]) -> Number:
    known = [value for value in values if value is not None]
    return plain(sum(known) / len(known)) if known else None
