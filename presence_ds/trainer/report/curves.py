"""Figures of logged steps, in bins of steps; of a group of runs, the mean and the range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from presence_ds.trainer.report.database import plain, plain_list, quoted
from presence_ds.trainer.report.figures import Curve, Number

if TYPE_CHECKING:
    import duckdb

CURVE_BINS = 400
AT_ONCE = 64  # columns in one query


def curves_of(connection: duckdb.DuckDBPyConnection, names: Sequence[str], tokens: str) -> dict[str, Curve]:
    """A curve of every column ``names`` of the table ``lines``; bins in which it has no figure are left out.

    Of the validation split a bin has the last figure in the place of the mean.

    Args:
        tokens: in SQL, those at a step.
    """
    span = connection.execute("select min(step), max(step) + 1 - min(step) from lines").fetchone()
    assert span is not None
    place = f"(step - {span[0]}) * {CURVE_BINS} // {span[1]}" if span[1] > CURVE_BINS else "step"
    common = f"select max(step), arg_max({tokens}, step), max(hours)"
    found = {}
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        figures = [f"{_middle(name)}, min({quoted(name)}), max({quoted(name)})" for name in part]
        rows = connection.execute(
            f"{common}, {', '.join(figures)} from lines group by {place} order by max(step)"
        ).fetchall()
        for number, name in enumerate(part):
            first = 3 + 3 * number
            kept = [row for row in rows if row[first] is not None]
            steps, all_tokens, hours, mean, low, high = (
                [row[place] for row in kept] for place in (0, 1, 2, first, first + 1, first + 2)
            )
            found[name] = Curve(
                step=steps,
                tokens=[None if value is None else int(value) for value in all_tokens],
                hours=plain_list(hours),
                mean=plain_list(mean),
                low=plain_list(low),
                high=plain_list(high),
            )
    return found


def _middle(name: str) -> str:
    return f"arg_max({quoted(name)}, step)" if name.startswith("validation/") else f"avg({quoted(name)})"


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
