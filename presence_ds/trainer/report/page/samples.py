"""Plots of the samples of one run: distributions, the plane of norm and alignment, sources, what weights are worth."""

from collections.abc import Iterator
from typing import Any

import altair as alt

from presence_ds.trainer.report.figures import RunFigures
from presence_ds.trainer.report.page.plot import COLOURS, Plot, make_plot, named
from presence_ds.trainer.report.sample_figures import Plane, Quantiles

FLAG = 2.0  # share of the update by share of the samples
CELL_WEIGHTS = [0.0, 0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 2.0]  # bounds between the colours of weights
KINDS = ["share of the samples", "weight mass", "share of the update"]


def distribution_plot(quantiles: Quantiles | None, name: str, title: str, axis: str, caption: str) -> Plot | None:
    """Quantiles of a figure of samples over steps."""
    if quantiles is None or not quantiles.step:
        return None
    parts = ("q05", "q25", "q50", "q75", "q95")
    rows = [
        {"step": step} | {part: getattr(quantiles, part)[bin] for part in parts}
        for bin, step in enumerate(quantiles.step)
    ]
    x = alt.X("step:Q", title="Step", scale=alt.Scale(nice=False, zero=False), axis=alt.Axis(format="~s", grid=False))
    tooltip = [alt.Tooltip("step:Q", format=",d"), *[alt.Tooltip(f"{part}:Q", format=".4~g") for part in parts]]
    base = named(name).encode(x=x)
    area = {"color": COLOURS[0], "aria": False}
    chart = alt.layer(
        base.mark_area(opacity=0.16, **area).encode(
            y=alt.Y("q05:Q", title=axis, scale=alt.Scale(zero=False)), y2="q95:Q"
        ),
        base.mark_area(opacity=0.3, **area).encode(y="q25:Q", y2="q75:Q"),
        base.mark_line(color=COLOURS[0], strokeWidth=2).encode(y="q50:Q"),
        base.mark_rule(opacity=0, strokeWidth=6).encode(y="q05:Q", y2="q95:Q", tooltip=tooltip),
    ).properties(height=200, width="container")
    return make_plot(name, title, caption, chart, {name: rows})


def plane_plots(plane: Plane | None, number: int) -> list[Plot]:
    """Density, best weight and weight in use over the plane, on one pair of axes, and both weights by norm alone."""
    if plane is None or not any(map(any, plane.counts)):
        return []
    data = f"plane-{number}"
    most = max(map(max, plane.counts))
    bounds = sorted({max(1, round(most ** (part / 7))) + 0.5 for part in range(1, 7)})
    shades = [f"var(--shade-{1 + round(place * 6 / max(1, len(bounds)))})" for place in range(len(bounds) + 1)]
    weights = [f"var(--weight-{place})" for place in range(len(CELL_WEIGHTS) + 1)]
    rows = {data: list(_cells(plane))}
    density = _cell_layer(data, "samples", bounds, shades, "samples")
    best = _cell_layer(data, "best", CELL_WEIGHTS, weights, "weight")
    used = _cell_layer(data, "weight", CELL_WEIGHTS, weights, "weight")
    plots = [
        make_plot(
            f"{data}-density",
            "Where the samples are",
            "Darker cells hold more samples. Right: large gradients. Above the line: a step along the sample helps the "
            "others, below it hurts them.",
            density,
            rows,
        ),
        make_plot(
            f"{data}-best",
            "The weight that would be best",
            "What such samples would weigh if alignments were known beforehand; 1 is uniform. Below the line it is "
            "negative: left out would be better.",
            best,
            rows,
        ),
    ]
    if any(weight is not None for line in plane.weight for weight in line):
        caption = "The mean weight that such samples had. The closer to the picture before, the better the weights."
        plots.append(make_plot(f"{data}-used", "The weight in use", caption, used, rows))
    plots += _norm_plot(plane, number)
    return plots


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


def _cell_layer(data: str, figure: str, bounds: list[float], colours: list[str], title: str) -> alt.LayerChart:
    scale = alt.Scale(type="threshold", domain=bounds, range=colours)
    legend = alt.Legend(title=title, orient="bottom", format=".0f" if figure == "samples" else ".3~g")
    cells = (
        named(data)
        .transform_filter(f"isValid(datum.{figure})")
        .mark_rect(aria=False, stroke=None)
        .encode(
            x=alt.X("x:Q", title="log₁₀ (n / mean n of the step)", scale=alt.Scale(nice=False, zero=False)),
            x2="x2:Q",
            y=alt.Y("y:Q", title="alignment a / √(n · mean n)", scale=alt.Scale(nice=False, zero=False)),
            y2="y2:Q",
            color=alt.Color(f"{figure}:Q", scale=scale, legend=legend),
            tooltip=[
                alt.Tooltip("samples:Q", format=",d"),
                alt.Tooltip("weight:Q", title="weight in use", format=".2f"),
                alt.Tooltip("best:Q", title="best weight", format=".2f"),
                alt.Tooltip("x:Q", title="log₁₀ n from", format=".2f"),
                alt.Tooltip("y:Q", title="alignment from", format=".3f"),
            ],
        )
    )
    zero = named(data).mark_rule(stroke="var(--text)", strokeDash=[3, 3], aria=False)
    return alt.layer(cells, zero.encode(y=alt.datum(0))).properties(height=240, width="container")


def _norm_plot(plane: Plane, number: int) -> list[Plot]:
    rows = []
    for bin, count in enumerate(plane.norm_counts):
        best, error = plane.norm_optimal[bin], plane.norm_error[bin]
        place = {"x": (plane.norm_edges[bin] + plane.norm_edges[bin + 1]) / 2, "samples": count}
        if count and best is not None:
            ends = {} if error is None else {"low": best - 2 * error, "high": best + 2 * error}
            rows.append(place | {"series": "best weight", "mean": best} | ends)
        if count and plane.norm_weight[bin] is not None:
            rows.append(place | {"series": "weight in use", "mean": plane.norm_weight[bin]})
    if not rows:
        return []
    data = f"norm-{number}"
    names = ["best weight", "weight in use"]
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=COLOURS[:2]), legend=alt.Legend(title=None))
    shape = alt.Shape("series:N", scale=alt.Scale(domain=names, range=["circle", "square"]))
    base = named(data).encode(
        x=alt.X("x:Q", title="log₁₀ (n / mean n of the step)", scale=alt.Scale(nice=False, zero=False)), color=colour
    )
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
    caption = (
        "The best weight that depends on the norm alone, with twice its standard error, beside the one in use. Where "
        "the lines part beyond the errors, other weights would have been better."
    )
    return [make_plot(data, "Weight by norm", caption, chart, {data: rows})]


def _span(rows: list[dict[str, Any]]) -> list[float]:
    """Of weights, not of errors: cells of a few samples have very large ones."""
    means = [row["mean"] for row in rows]
    return [max(min(0.0, *means), -2.0) - 0.1, min(max(1.0, *means), 5.0) + 0.1]


def sources_plot(run: RunFigures, number: int) -> Plot | None:
    """Every source's shares."""
    rows = []
    for source in run.sources:
        for kind, value in zip(
            KINDS, (source.share_of_samples, source.weight_mass, source.share_of_update), strict=True
        ):
            if value is not None:
                rows.append({"source": source.name, "kind": kind, "share": value})
    if not rows or len(run.sources) < 2:
        return None
    data = f"sources-{number}"
    order = [source.name for source in sorted(run.sources, key=lambda source: -source.share_of_samples)]
    base = named(data).encode(
        y=alt.Y("source:N", sort=order, title=None, axis=alt.Axis(labelLimit=150, ticks=False, grid=True)),
        x=alt.X("share:Q", title="share of the run", axis=alt.Axis(format="~%")),
    )
    kinds = alt.Scale(domain=KINDS, range=["square", "circle", "diamond"])
    key = alt.Legend(title=None)
    points = base.mark_point(filled=True, size=110, opacity=0.9).encode(
        color=alt.Color("kind:N", scale=alt.Scale(domain=KINDS, range=["var(--muted)", *COLOURS[:2]]), legend=key),
        shape=alt.Shape("kind:N", scale=kinds, legend=key),
        tooltip=["source:N", alt.Tooltip("kind:N", title="what"), alt.Tooltip("share:Q", format=".1%")],
    )
    line = base.mark_line(stroke="var(--rule)", strokeWidth=3, aria=False).encode(detail="source:N")
    chart = alt.layer(line, points).properties(height={"step": 30}, width="container")
    caption = (
        "How much of the run each source is, how much of the weight it was given, and how much of the updates it made. "
        "A diamond far to the right of its square moves the model more than its share of the text."
    )
    return make_plot(data, "What each source is, is given and does", caption, chart, {data: rows})


def worth_plot(run: RunFigures, number: int) -> Plot | None:
    """What weights would have been worth, with intervals."""
    rows = []
    for weights in run.worth.weights if run.worth else []:
        if weights.gain is not None:
            error = weights.error or 0.0
            kind = "in use" if weights.name == "in_use" else "compared"
            ends = {"low": weights.gain - 1.96 * error, "high": weights.gain + 1.96 * error}
            rows.append({"weights": weights.words, "gain": weights.gain, "kind": kind} | ends)
    if not rows:
        return None
    data = f"worth-{number}"
    order = [row["weights"] for row in rows]
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["in use", "compared"], range=COLOURS[:2][::-1]))
    base = named(data).encode(y=alt.Y("weights:N", sort=order, title=None, axis=alt.Axis(labelLimit=190, ticks=False)))
    tooltip = [
        "weights:N",
        alt.Tooltip("gain:Q", format=".3f"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
    ]
    one = named(data).mark_rule(stroke="var(--muted)", strokeDash=[3, 3], aria=False)
    chart = alt.layer(
        one.encode(x=alt.datum(1)),
        base.mark_rule(strokeWidth=2, aria=False).encode(x="low:Q", x2="high:Q", color=colour),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x=alt.X("gain:Q", title="worth in batch size (1: as uniform weights)", scale=alt.Scale(zero=False)),
            color=alt.Color("kind:N", legend=alt.Legend(title=None)),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=["in use", "compared"], range=["diamond", "circle"])),
            tooltip=tooltip,
        ),
    ).properties(height={"step": 28}, width="container")
    caption = (
        "How many times as large a batch uniform weights would need to do as well; the bar is the 95 % interval. Right "
        "of the line of 1 weights help, and where the bar crosses it nothing can be told."
    )
    return make_plot(data, "What weights are worth", caption, chart, {data: rows})
