"""Figures over the run, of groups of runs: loss, validation, stability, throughput."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import altair as alt

from presence_ds.trainer.report.figures import Curve, Group, Report, RunFigures
from presence_ds.trainer.report.page.plot import Plot, Swatch, make_plot, named, series, series_key

AXES = {"step": "Step", "tokens": "Tokens", "hours": "Hours"}  # of losses, and their titles
MARKS = {"spike": "spike", "high loss": "high loss", "spread": "evenly spaced"}
SHAPES = ["triangle-up", "diamond", "circle"]
BETWEEN = ("stage", "switch", "resume")  # events that part the run
LARGE = alt.Axis(grid=False, labelExpr="format(datum.value, abs(datum.value) < 1e4 ? ',~r' : '.3~s')")
FEW = 3  # points of a line, that are seen as such
SHOWN = "datum.share >= from_share && datum.run === run"
Row = dict[str, Any]


def loss_plot(report: Report) -> Plot | None:
    """Training loss of all groups, with the steps that can be chosen."""
    rows = list(group_rows(report, "loss"))
    if not rows:
        return None
    marks = list(_marks(report))
    rules = list(_rules(report))
    seeds = any(len(group.runs) > 1 for group in report.groups)
    single = list(_run_rows(report)) if seeds else []
    layers: list[alt.Chart | alt.LayerChart] = [_rule_layer()] if rules else []
    key = series_key(names_of(report), (row["series"] for row in rows))
    layers.append(_lines("loss", rows, "Training loss (nats)", key, height=300))
    if single:
        layers.append(_run_layer())
    if marks:
        layers.append(_mark_layer({mark["kind"] for mark in marks}))
    caption = f"Mean loss of the samples of a step{_band_words(report, rows)}. A line that falls is still learning."
    if len(report.groups) > 1:
        caption += " Compare lines at the same step, number of tokens or hours."
    if single:
        caption += " The thin line is the run whose details are shown."
    if marks:
        caption += " A mark is a step whose documents are listed below: choose it with the mouse, or from the list."
    extra = {"loss-run": single, "loss-marks": marks, "loss-rules": rules}
    data = {"loss": rows} | {name: some for name, some in extra.items() if some}
    return make_plot("loss", "Training loss", caption, _switched(alt.LayerChart(layer=layers)), data, _shown(key))


def validation_plot(report: Report) -> Plot | None:
    """Validation loss of all groups."""
    rows = list(group_rows(report, "", validation=True))
    if not rows:
        return None
    key = series_key(names_of(report), (row["series"] for row in rows))
    chart = _switched(_lines("validation", rows, "Validation loss (nats)", key, height=260, points=True))
    caption = (
        f"Loss on text that is not trained on, at every evaluation{_band_words(report, rows)}. This is the curve to "
        "judge by: training loss also depends on which samples a run counts for more."
    )
    return make_plot("validation", "Validation loss", caption, chart, {"validation": rows}, _shown(key))


def source_validation_plot(run: RunFigures, number: int, report: Report) -> Plot | None:
    """Validation loss of a run, source by source."""
    curves = {name: curve for name, curve in run.validation.items() if name}
    rows = [row for name, curve in curves.items() for row in curve_rows(curve, name, report)]
    if not rows:
        return None
    data = f"validation-{number}"
    key = series_key(list(curves), (row["series"] for row in rows))
    chart = _plain(_lines(data, rows, "Validation loss (nats)", key, height=240, points=True))
    caption = (
        "Loss on the validation text of every source. A source that falls behind while the others improve is one that "
        "the weights, or the mixture, neglect."
    )
    return make_plot(data, "Validation loss by source", caption, chart, {data: rows}, key)


def figure_plot(report: Report, figure: str, title: str, axis: str, caption: str) -> Plot | None:
    """A figure of the metrics over steps, of all groups."""
    rows = list(group_rows(report, figure))
    if not rows:
        return None
    name = "figure-" + "".join(letter if letter.isalnum() else "-" for letter in figure)
    key = series_key(names_of(report), (row["series"] for row in rows))
    chart = _plain(_lines(name, rows, axis, key, height=180))
    return make_plot(name, title, caption, chart, {name: rows}, _shown(key))


def _shown(key: list[Swatch]) -> list[Swatch]:
    """Of groups: one alone needs no key."""
    return key if len(key) > 1 else []


def group_rows(report: Report, figure: str, *, validation: bool = False) -> Iterator[Row]:
    """Of a figure, a row for every bin of every group that has it; ``line`` sets lines of one group apart."""
    for name, group in zip(names_of(report), report.groups, strict=True):
        for line, curve in enumerate(_curves_of(report, group, figure, validation=validation)):
            for row in curve_rows(curve, name, report):
                yield row | {"line": line}


def curve_rows(curve: Curve | None, name: str, report: Report) -> Iterator[Row]:
    """The bins of a curve that have a mean, or break the line."""
    if curve is None or not any(mean is not None for mean in curve.mean):
        return
    last = max((run.step for run in report.runs), default=0) or 1
    for bin in range(len(curve.step)):
        yield {
            "series": name,
            "step": curve.step[bin],
            "tokens": curve.tokens[bin],
            "hours": curve.hours[bin],
            "share": curve.step[bin] / last,
            "mean": curve.mean[bin],
            "low": curve.low[bin],
            "high": curve.high[bin],
        }


def names_of(report: Report) -> list[str]:
    """Of groups, no two alike."""
    names = [group.name or "run" for group in report.groups]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _curves_of(report: Report, group: Group, figure: str, *, validation: bool = False) -> list[Curve]:
    """A group's curve; where its runs have no steps in common, those of its runs."""
    found = (group.validation if validation else group.curves).get(figure)
    if found is not None:
        return [found]
    runs = [report.runs[place] for place in group.runs]
    own = [(run.validation if validation else run.curves).get(figure) for run in runs]
    return [curve for curve in own if curve is not None]


def _band_words(report: Report, rows: list[Row]) -> str:
    if any(len(group.runs) > 1 for group in report.groups):
        hours = any(row["hours"] is not None for row in rows)
        where = " (over hours, it stands at the mean of its seeds' hours)" if hours else ""
        return f": the line is the mean over seeds at a step{where}, the band reaches from the lowest to the highest"
    if any(row["low"] != row["high"] for row in rows):
        return ": the band reaches from the lowest to the highest of the steps that a point stands for"
    return ""


def _marks(report: Report) -> Iterator[Row]:
    for number, run in enumerate(report.runs):
        curve = run.curves.get("loss", Curve())
        for moved in run.moved:
            place = _place(curve, moved.step)
            loss = moved.loss if moved.loss is not None else place["mean"]
            if loss is not None:
                yield place | {
                    "step": moved.step,
                    "share": moved.step / (max(run.step for run in report.runs) or 1),
                    "loss": loss,
                    "run": number,
                    "label": run.label,
                    "kind": MARKS.get(moved.why, moved.why),
                    "words": moved.words,
                    "key": f"{number}-{moved.step}",
                }


def _run_rows(report: Report) -> Iterator[Row]:
    for number, run in enumerate(report.runs):
        for row in curve_rows(run.curves.get("loss"), run.label, report):
            yield {name: row[name] for name in (*AXES, "share", "mean")} | {"run": number}


def _rules(report: Report) -> Iterator[Row]:
    for number, run in enumerate(report.runs):
        curve = run.curves.get("loss", Curve())
        for event in run.events:
            if event.kind in BETWEEN:
                share = event.step / (max(run.step for run in report.runs) or 1)
                yield _place(curve, event.step) | {
                    "step": event.step,
                    "share": share,
                    "words": event.words,
                    "run": number,
                }


def _place(curve: Curve, step: int) -> Row:
    """Where a step lies on the other axes, between the ends of bins."""
    if not curve.step:
        return {"tokens": None, "hours": None, "mean": None}
    bin = min(bisect_left(curve.step, step), len(curve.step) - 1)
    start = curve.step[bin - 1] if bin else 0
    part = min(1.0, (step - start) / (curve.step[bin] - start))
    place: Row = {"mean": curve.mean[bin]}
    for axis, values in (("tokens", curve.tokens), ("hours", curve.hours)):
        first, last = values[bin - 1] if bin else 0, values[bin]
        place[axis] = None if first is None or last is None else first + part * (last - first)
    return place


def _x() -> alt.X:
    """Of curves; the page's script knows it by its title, and names it after what is chosen."""
    return alt.X("x:Q", title=AXES["step"], scale=alt.Scale(nice=False, zero=False, padding=8), axis=LARGE)


def _lines(
    data: str, rows: list[Row], title: str, key: list[Swatch], *, height: int, points: bool = False
) -> alt.LayerChart:
    """A line and a band for every value of ``series``."""
    encodings = series(key) | {"detail": "line:N"}
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("series:N", title="run"),
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("mean:Q", format=".5~g"),
        alt.Tooltip("low:Q", format=".5~g"),
        alt.Tooltip("high:Q", format=".5~g"),
    ]
    points = points or len(rows) <= FEW * len(key)
    base = named(data).transform_filter("datum.share >= from_share").transform_calculate(x="datum[x_axis]")
    fill = {name: encodings[name] for name in ("color", "detail")}
    band = base.mark_area(opacity=0.18, aria=False).encode(x=_x(), y=alt.Y("low:Q"), y2="high:Q", **fill)
    line = base.mark_line(strokeWidth=2).encode(x=_x(), y=y, **encodings)
    dots = base.mark_point(size=36 if points else 60, filled=True, opacity=1 if points else 0, aria=False)
    return alt.layer(band, line, dots.encode(x=_x(), y=y, tooltip=tooltip, **fill)).properties(
        height=height, width="container"
    )


def _mark_layer(used: set[str]) -> alt.Chart:
    """The steps that can be chosen: spikes by their shape, the chosen one by size, outline and colour."""
    chosen = "datum.key === selected"
    shapes = {kind: shape for kind, shape in zip(MARKS.values(), SHAPES, strict=True) if kind in used}
    kinds = alt.Scale(domain=list(shapes), range=list(shapes.values()))
    key = alt.Legend(title=None, orient="bottom", columns=3, symbolFillColor="var(--text)", symbolStrokeWidth=0)
    return (
        named("loss-marks")
        .transform_filter(SHOWN)
        .transform_calculate(x="datum[x_axis]")
        .mark_point(filled=True, cursor="pointer", opacity=1)
        .encode(
            x=_x(),
            y="loss:Q",
            shape=alt.Shape("kind:N", scale=kinds, legend=key),
            size=alt.condition(chosen, alt.value(260), alt.value(90)),
            fill=alt.condition(chosen, alt.value("var(--mark)"), alt.value("var(--text)")),
            stroke=alt.condition(chosen, alt.value("var(--text)"), alt.value("var(--paper)")),
            strokeWidth=alt.condition(chosen, alt.value(2.5), alt.value(1)),
            tooltip=[
                alt.Tooltip("label:N", title="run"),
                alt.Tooltip("step:Q", format=",d"),
                alt.Tooltip("loss:Q", format=".4f"),
                alt.Tooltip("words:N", title="why"),
            ],
        )
    )


def _run_layer() -> alt.Chart:
    """The run that is shown, thin over the mean of its group."""
    line = named("loss-run").transform_filter(SHOWN).transform_calculate(x="datum[x_axis]")
    return line.mark_line(strokeWidth=1, stroke="var(--text)", opacity=0.7, aria=False).encode(x=_x(), y="mean:Q")


def _rule_layer() -> alt.Chart:
    return (
        named("loss-rules")
        .transform_filter(SHOWN)
        .transform_calculate(x="datum[x_axis]")
        .mark_rule(strokeDash=[2, 3], stroke="var(--muted)")
        .encode(x=_x(), tooltip=[alt.Tooltip("step:Q", format=",d"), alt.Tooltip("words:N", title="what")])
    )


def _switched(chart: alt.LayerChart) -> alt.LayerChart:
    """With the parameters that the page's switches set."""
    return _plain(chart).add_params(alt.param(name="selected", value=""), alt.param(name="run", value=0))


def _plain(chart: alt.LayerChart) -> alt.LayerChart:
    return chart.properties(width="container").add_params(
        alt.param(name="x_axis", value="step"), alt.param(name="from_share", value=0)
    )
