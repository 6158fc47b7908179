"""The plane of squared norm and alignment: where samples lie, what would be the best weight, and the one in use."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt

from presence_ds.trainer.report.page.plot import COLOURS, Plot, Swatch, make_plot, named, once
from presence_ds.trainer.report.sample_figures import Plane

SHADES = 7
WEIGHTS = [0.0, 0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0]  # bounds between the colours of weights
NORM_AXIS = "log₁₀ (n / mean n of the step)"


def plane_plots(plane: Plane | None, number: int) -> list[Plot]:
    """Three pictures on one pair of axes: density, best weight, weight in use."""
    if plane is None or not any(map(any, plane.counts)):
        return []
    data = f"plane-{number}"
    rows = {data: list(_cells(plane))}
    bounds = _bounds(max(map(max, plane.counts)))
    shades = [f"var(--shade-{1 + round(place * (SHADES - 1) / len(bounds))})" for place in range(len(bounds) + 1)]
    weights = [f"var(--weight-{place})" for place in range(len(WEIGHTS) + 1)]
    weight_key = [Swatch(*one) for one in zip(weights, _ranges(WEIGHTS), strict=True)]
    pictures = [
        (
            "density",
            "samples",
            "Where the samples are",
            "The stronger the colour, the more samples. Right: large gradients. Above the line a step along the sample "
            "helps the others, below it hurts them. Samples beyond an edge are counted in its cells.",
        ),
        (
            "best",
            "best",
            "The weight that would be best",
            "What such samples would weigh if alignments were known beforehand; 1 is uniform, and the mean over all "
            "samples. Below the line it is negative: left out would be better.",
        ),
        (
            "used",
            "weight",
            "The weight in use",
            "The mean weight that such samples had. The closer to the picture before, the better the weights.",
        ),
    ]
    plots = []
    for name, figure, title, caption in pictures:
        if all(row[figure] is None for row in rows[data]):
            continue
        if figure == "samples":
            layer = _cell_layer(plane, data, figure, [bound - 0.5 for bound in bounds], shades)
            key = [Swatch(*one) for one in zip(shades, _counted([1, *bounds]), strict=True)]
        else:
            layer, key = _cell_layer(plane, data, figure, WEIGHTS, weights), weight_key
        plots.append(make_plot(f"{data}-{name}", title, caption, layer, rows, key))
    return plots


def _bounds(most: int) -> list[int]:
    """Least counts of the second and every further colour, each so many times the one before."""
    return sorted({max(2, round((most + 1) ** (part / SHADES))) for part in range(1, SHADES)})


def _counted(starts: list[int]) -> list[str]:
    ends = [end - 1 for end in starts[1:]]
    return [
        f"{start:,}" if start == end else f"{start:,}–{end:,}" for start, end in zip(starts, ends, strict=False)
    ] + [f"{starts[-1]:,} and more"]


def _ranges(bounds: list[float]) -> list[str]:
    between = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(bounds)]
    return [f"below {bounds[0]:g}", *between, f"above {bounds[-1]:g}"]


def _cells(plane: Plane) -> Iterator[dict[str, Any]]:
    x, y = plane.norm_edges, plane.alignment_edges
    for up, line in enumerate(plane.counts):
        for across, count in enumerate(line):
            if count:
                yield {
                    "x": x[across],
                    "x2": x[across + 1],
                    "y": y[up],
                    "y2": y[up + 1],
                    "samples": count,
                    "best": plane.optimal[up][across],
                    "weight": plane.weight[up][across],
                }


def _cell_layer(plane: Plane, data: str, figure: str, bounds: Sequence[float], colours: list[str]) -> alt.LayerChart:
    bare = alt.Axis(grid=False)
    x, y = plane.norm_edges, plane.alignment_edges
    across = alt.Scale(nice=False, domain=[x[0], x[-1]])
    up = alt.Scale(type="symlog", constant=plane.alignment_middle, nice=False, domain=[y[0], y[-1]])
    cells = (
        named(data)
        .transform_filter(f"isValid(datum.{figure})")
        .mark_rect(aria=False, stroke=None)
        .encode(
            x=alt.X("x:Q", title=NORM_AXIS, scale=across, axis=bare),
            x2="x2:Q",
            y=alt.Y("y:Q", title="alignment a / √(n · mean n)", scale=up, axis=_ticks(y)),
            y2="y2:Q",
            color=alt.Color(
                f"{figure}:Q", scale=alt.Scale(type="threshold", domain=bounds, range=colours), legend=None
            ),
            tooltip=[
                alt.Tooltip("samples:Q", format=",d"),
                alt.Tooltip("weight:Q", title="weight in use", format=".2f"),
                alt.Tooltip("best:Q", title="best weight", format=".2f"),
                alt.Tooltip("x:Q", title="log₁₀ (n / mean n) from", format=".2f"),
                alt.Tooltip("y:Q", title="a / √(n · mean n) from", format=".3f"),
            ],
        )
    )
    zero = once(data).mark_rule(stroke="var(--text)", strokeDash=[3, 3], aria=False)
    return alt.layer(cells, zero.encode(y=alt.datum(0))).properties(height=240, width="container")


def _ticks(edges: Sequence[float]) -> alt.Axis:
    """0, and powers of ten and three times these on both sides of it, as rows grow."""
    most = max(-edges[0], edges[-1])
    first = math.floor(math.log10(most)) if most > 0 else 0
    sizes = [round(part * 10.0**power, 12) for power in (first - 1, first) for part in (1, 3)]
    kept = [size for size in sizes if size <= most]
    return alt.Axis(grid=False, values=[*(-size for size in kept), 0.0, *kept], format="~g")


def norm_plot(plane: Plane | None, number: int) -> Plot | None:
    """The best weight that depends on the norm alone, and the one in use."""
    if plane is None:
        return None
    rows: list[dict[str, Any]] = []
    for bin, count in enumerate(plane.norm_counts):
        best, error = plane.norm_optimal[bin], plane.norm_error[bin]
        place: dict[str, Any] = {"x": (plane.norm_edges[bin] + plane.norm_edges[bin + 1]) / 2, "samples": count}
        if count and best is not None:
            ends = {} if error is None else {"low": best - 2 * error, "high": best + 2 * error}
            rows.append(place | {"series": "best weight", "mean": best} | ends)
        if count and plane.norm_weight[bin] is not None:
            rows.append(place | {"series": "weight in use", "mean": plane.norm_weight[bin]})
    if not rows:
        return None
    data = f"norm-{number}"
    names = ["best weight", "weight in use"]
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=COLOURS[:2]), legend=alt.Legend(title=None))
    shape = alt.Shape("series:N", scale=alt.Scale(domain=names, range=["circle", "square"]))
    base = named(data).encode(x=alt.X("x:Q", title=NORM_AXIS, scale=alt.Scale(nice=False, zero=False)), color=colour)
    tooltip = [
        alt.Tooltip("series:N", title="what"),
        alt.Tooltip("mean:Q", title="weight", format=".3f"),
        alt.Tooltip("samples:Q", format=",d"),
    ]
    chart = alt.layer(
        base.mark_rule(aria=False, clip=True).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line(clip=True).encode(y="mean:Q", strokeDash=alt.StrokeDash("series:N", legend=None)),
        base.mark_point(filled=True, size=50, opacity=1, clip=True).encode(
            y=alt.Y("mean:Q", title="weight (1 is uniform)", scale=alt.Scale(domain=_span(rows))),
            shape=shape,
            tooltip=tooltip,
        ),
    ).properties(height=220, width="container")
    known = any("low" in row for row in rows)
    bars = ", with twice its standard error," if known else ""
    reading = "Where the lines part beyond the errors, other weights would have been better."
    caption = (
        f"The best weight that depends on the norm alone{bars} beside the one in use; of both the mean over all "
        f"samples is 1. {reading if known else 'Of so few steps its error is not known.'}"
    )
    return make_plot(data, "Weight by norm", caption, chart, {data: rows})


def _span(rows: list[dict[str, Any]]) -> list[float]:
    """Of weights, not of errors: cells of a few samples have very large ones."""
    means = [row["mean"] for row in rows]
    return [max(min(0.0, *means), -2.0) - 0.1, min(max(1.0, *means), 5.0) + 0.1]
