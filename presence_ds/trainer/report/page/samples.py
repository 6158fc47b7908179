"""Plots of one run: distributions over samples, sources, what weights are worth."""

from textwrap import wrap
from typing import Any

import altair as alt

from presence_ds.trainer.report.figures import RunFigures
from presence_ds.trainer.report.page.curves import LARGE
from presence_ds.trainer.report.page.plot import COLOURS, Plot, make_plot, named, once
from presence_ds.trainer.report.sample_figures import Quantiles

WRAP, LINE = 20, 14  # characters of a line of a label, and pixels that it is high
KINDS = {  # of shares of a source: colour, shape
    "share of the samples": ("var(--muted)", "square"),
    "weight mass": (COLOURS[0], "circle"),
    "share of the update": (COLOURS[1], "diamond"),
}


def distribution_plot(quantiles: Quantiles | None, name: str, title: str, axis: str, caption: str) -> Plot | None:
    """Quantiles of a figure of samples over steps."""
    if quantiles is None or not quantiles.step:
        return None
    parts = ("q05", "q25", "q50", "q75", "q95")
    rows = [
        {"step": step} | {part: getattr(quantiles, part)[bin] for part in parts}
        for bin, step in enumerate(quantiles.step)
    ]
    x = alt.X("step:Q", title="Step", scale=alt.Scale(nice=False, zero=False), axis=LARGE)
    tooltip = [alt.Tooltip("step:Q", format=",d"), *[alt.Tooltip(f"{part}:Q", format=".4~g") for part in parts]]
    base = named(name).encode(x=x)
    few = len(rows) < 3  # which make no area
    area = {"color": COLOURS[0], "aria": False}
    chart = alt.layer(
        base.mark_area(opacity=0.16, **area).encode(
            y=alt.Y("q05:Q", title=axis, scale=alt.Scale(zero=False)), y2="q95:Q"
        ),
        base.mark_area(opacity=0.3, **area).encode(y="q25:Q", y2="q75:Q"),
        base.mark_line(color=COLOURS[0], strokeWidth=2).encode(y="q50:Q"),
        base.mark_point(color=COLOURS[0], filled=True, opacity=1 if few else 0, aria=False).encode(y="q50:Q"),
        base.mark_rule(opacity=0.3 if few else 0, strokeWidth=6).encode(y="q05:Q", y2="q95:Q", tooltip=tooltip),
    ).properties(height=200, width="container")
    return make_plot(name, title, caption, chart, {name: rows})


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
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    base = named(data).encode(
        y=alt.Y("source:N", sort=order, title=None, axis=alt.Axis(grid=True)),
        x=alt.X("share:Q", title="share of the run", axis=alt.Axis(format="~%")),
    )
    colours, shapes = (alt.Scale(domain=kinds, range=[KINDS[kind][look] for kind in kinds]) for look in (0, 1))
    key = alt.Legend(title=None)
    points = base.mark_point(filled=True, size=110, opacity=0.9).encode(
        color=alt.Color("kind:N", scale=colours, legend=key),
        shape=alt.Shape("kind:N", scale=shapes, legend=key),
        tooltip=["source:N", alt.Tooltip("kind:N", title="what"), alt.Tooltip("share:Q", format=".1%")],
    )
    line = base.mark_line(stroke="var(--rule)", strokeWidth=3, aria=False).encode(detail="source:N")
    chart = alt.layer(line, points).properties(height=30 * len(order) + 10, width="container")
    caption = "How much of the run each source is, and how much of the weight it was given."
    if "share of the update" in kinds:
        caption = (
            "How much of the run each source is, how much of the weight it was given, and how much of the updates it "
            "made. A diamond far to the right of its square moves the model more than its share of the text."
        )
    return make_plot(data, "What each source is, is given and does", caption, chart, {data: rows})


def worth_plot(run: RunFigures, number: int) -> Plot | None:
    """What weights would have been worth, with intervals."""
    rows: list[dict[str, Any]] = []
    for weights in run.worth.weights if run.worth else []:
        if weights.gain is not None:
            error = weights.error or 0.0
            kind = "in use" if weights.name == "in_use" else "compared"
            ends = {"low": weights.gain - 1.96 * error, "high": weights.gain + 1.96 * error}
            words = "\n".join(wrap(weights.words, WRAP, max_lines=3, placeholder="…"))
            rows.append({"weights": words, "gain": weights.gain, "kind": kind} | ends)
    if not rows:
        return None
    data = f"worth-{number}"
    order = [row["weights"] for row in rows]
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["in use", "compared"], range=COLOURS[:2][::-1]))
    middle = alt.ExprRef(f"{-LINE / 2} * (length(split(datum.value, '\\n')) - 1)")
    axis = alt.Axis(labelExpr="split(datum.label, '\\n')", labelLimit=200, labelOffset=middle, labelLineHeight=LINE)
    base = named(data).encode(y=alt.Y("weights:N", sort=order, title=None, axis=axis))
    tooltip = [
        "weights:N",
        alt.Tooltip("gain:Q", format=".3f"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
    ]
    one = once(data).mark_rule(stroke="var(--muted)", strokeDash=[3, 3], aria=False)
    chart = alt.layer(
        one.encode(x=alt.datum(1)),
        base.mark_rule(strokeWidth=2, aria=False).encode(x="low:Q", x2="high:Q", color=colour),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x=alt.X("gain:Q", title="worth in batch size", scale=alt.Scale(zero=False)),
            color=alt.Color("kind:N", legend=alt.Legend(title=None)),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=["in use", "compared"], range=["diamond", "circle"])),
            tooltip=tooltip,
        ),
    ).properties(height=3 * LINE * len(order), width="container")
    caption = (
        "How many times as large a batch uniform weights would need to do as well; the bar is the 95 % interval. Right "
        "of the line of 1 weights help, and where the bar crosses it nothing can be told."
    )
    return make_plot(data, "Worth in batch size", caption, chart, {data: rows})
