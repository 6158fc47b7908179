"""What a plot consists of, and what all of them share.

Colours are variables of the page's style sheet, so that plots follow the theme and the print without being drawn again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt

COLOURS = [f"var(--line-{number})" for number in range(1, 9)]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 1, 1, 1], [1, 3], [10, 2, 2, 2, 2, 2]]
Rows = Sequence[Mapping[str, Any]]


class Swatch(NamedTuple):
    """A colour of a plot, and what it stands for.

    Attributes:
        dash: of a line, in pixels; none for an area.
    """

    colour: str
    words: str
    dash: Sequence[int] = ()


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Attributes:
        name: unlike that of any other plot of the page.
        caption: what it shows and how to read it.
        spec: of Vega-Lite, without data.
        data: of the spec by name, in columns of one length.
        key: what colours stand for, where that is no legend of Vega's, whose labels are cut.
    """

    name: str
    title: str
    caption: str
    spec: dict[str, Any]
    data: dict[str, dict[str, list[Any]]]
    key: tuple[Swatch, ...] = ()


def make_plot(
    name: str,
    title: str,
    caption: str,
    chart: alt.TopLevelMixin,
    data: Mapping[str, Rows],
    key: Iterable[Swatch] = (),
) -> Plot:
    """A plot of ``chart``, whose data are named as in ``data``."""
    spec = chart.to_dict(validate=False)  # the tests do, which takes as long as all the rest
    spec.pop("config", None)  # which is the page's
    spec["description"] = f"{title}. {caption}"
    return Plot(name, title, caption, spec, {name: columns(rows) for name, rows in data.items()}, tuple(key))


def named(name: str) -> alt.Chart:
    """A chart of the data of that name."""
    return alt.Chart(alt.NamedData(name=name))


def columns(rows: Rows) -> dict[str, list[Any]]:
    """Rows as columns, numbers with six significant digits: an eighth of the size."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [_short(row.get(name)) for row in rows] for name in names}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def once(name: str) -> alt.Chart:
    """A chart of one mark, whatever the number of rows of the data of that name."""
    return named(name).transform_aggregate(rows="count()")


def series_key(names: Sequence[str], used: Iterable[str]) -> list[Swatch]:
    """What lines look like.

    Args:
        names: that there may be; each has one look in all plots that are given the same.
        used: those that this plot has.
    """
    kept = set(used)
    return [
        Swatch(COLOURS[place % len(COLOURS)], name, DASHES[place % len(DASHES)])
        for place, name in enumerate(names)
        if name in kept
    ]


def series(key: Sequence[Swatch]) -> dict[str, Any]:
    """Encodings by colour and dash of the field ``series``, for lines as in ``key``, which stands beside the plot."""
    domain = [swatch.words for swatch in key]
    colours, dashes = [swatch.colour for swatch in key], [swatch.dash for swatch in key]
    return {
        "color": alt.Color("series:N", scale=alt.Scale(domain=domain, range=colours), legend=None),
        "strokeDash": alt.StrokeDash("series:N", scale=alt.Scale(domain=domain, range=dashes), legend=None),
    }
