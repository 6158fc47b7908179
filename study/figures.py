"""Figures of a study's document, made from its committed rows alone."""

from collections.abc import Sequence

import altair as alt
import vl_convert

from study.arms import ARMS
from study.contrasts import Run
from study.predictions import TELLERS, predictions


def predictions_figure(runs: Sequence[Run]) -> str:
    """Differences of the loss that were foretold, and those that were seen, as SVG: on the line both are the same."""
    points = [
        {
            "arm": ARMS[prediction.effect.arm].title,
            "told": TELLERS[prediction.teller],
            "foretold": prediction.change,
            "seen": prediction.effect.mean,
            "low": prediction.effect.low,
            "high": prediction.effect.high,
        }
        for prediction in predictions(runs)
        if prediction.change is not None and prediction.effect.low is not None
    ]
    ends = [value for point in points for value in (point["foretold"], point["low"], point["high"])] or [0.0]
    line = [{"foretold": end, "seen": end} for end in (min(ends), max(ends))]  # type: ignore[type-var]
    x = alt.X("foretold:Q", title="difference from uniform that was foretold, in nats")
    y = alt.Y("seen:Q", title="difference that was seen, with its 95 % interval")
    marks = alt.Chart(alt.Data(values=points)).encode(x=x, color=alt.Color("arm:N", title=None))
    chart = alt.layer(
        alt.Chart(alt.Data(values=line)).mark_line(color="#999", strokeDash=[4, 4]).encode(x=x, y=y),
        marks.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q"),
        marks.mark_point(filled=True, size=60).encode(y=y, shape=alt.Shape("told:N", title="good for")),
    ).properties(width=560, height=360)
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))
