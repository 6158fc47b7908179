"""A report as one HTML file."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from presence_ds.reweighting.update_share import OUTSIZED
from presence_ds.trainer.report.comparison import signed
from presence_ds.trainer.report.figures import Report
from presence_ds.trainer.report.page import samples, text
from presence_ds.trainer.report.page.curves import AXES, figure_plot, loss_plot, source_validation_plot, validation_plot
from presence_ds.trainer.report.page.plane import norm_plot, plane_plots
from presence_ds.trainer.report.page.plot import Plot
from presence_ds.trainer.report.page.size import MOST_BYTES, smaller
from presence_ds.trainer.report.page.tables import columns_of, gaps_of
from presence_ds.trainer.report.sample_figures import MovedStep, Quantiles

HERE = Path(__file__).parent
LEVELS = {"told": ("·", ""), "good": ("✓", "good"), "look": ("▲", "to look at"), "bad": ("✕", "bad")}
VERDICTS = {"keep": "✓ keep", "doubtful": "? doubtful", "drop": "✕ drop"}
OVER_TIME = {  # by section: figure, title, axis, caption
    "worth": [
        (
            "gain/in_use",
            "Worth of the weights in use",
            "× batch size",
            "Above 1 the weights do as well as a larger batch.",
        ),
        ("noise_scale", "Noise scale", "samples", "A batch far above this many samples stops paying."),
    ],
    "stability": [
        ("gradient_norm", "Norm of the gradient", "norm", "It should settle; a jump is what a spike begins with."),
        ("learning_rate", "Learning rate", "rate", "What the optimizer was given."),
        ("effective_share", "Effective share of the samples", "share", "1: all count alike; near 0: a few decide."),
    ],
    "cost": [
        ("throughput(tokens/s)", "Throughput", "tokens/s", "A dip is waiting: for data, a neighbour, a disk."),
        ("memory/peak(GiB)", "Peak memory of rank 0", "GiB", "It should be flat after the first steps."),
    ],
}


def render(report: Report, version: str | None = None, most_bytes: int = MOST_BYTES) -> str:
    """The page, of at most ``most_bytes`` as far as leaving out text and figures of samples can do it.

    Args:
        version: of a page that is made again and again: served by `serve.Server`, it loads itself anew when there is
            another one.
    """
    page = ""
    for made in smaller(text.made_visible(report)):
        page = _rendered(made, version)
        if len(page.encode()) <= most_bytes:
            break
    return page


def _rendered(report: Report, version: str | None) -> str:
    plots = _Plots()
    plots.add("loss", loss_plot(report))
    plots.add("validation", validation_plot(report))
    for section, figures in OVER_TIME.items():
        for figure, title, axis, caption in figures:
            plots.add(section, figure_plot(report, figure, title, axis, caption))
    for number, run in enumerate(report.runs):
        plots.add(f"distributions-{number}", *_distributions(run.self_influence, run.weight, number))
        plots.add(f"plane-{number}", *plane_plots(run.plane, number))
        plots.add(f"norm-{number}", norm_plot(run.plane, number))
        plots.add(f"sources-{number}", samples.sources_plot(run, number))
        plots.add(f"worth-{number}", samples.worth_plot(run, number))
        plots.add(f"validation-{number}", source_validation_plot(run, number, report))
    script = _asset("report.js")
    bundle = _bundle()
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            shown_first=next((number for number, run in enumerate(report.runs) if run.moved), 0),
            columns=columns_of(report),
            gaps=gaps_of(report.runs),
            plots=plots.by_section,
            axes=plots.axes(),
            data=text.script_json(plots.data()),
            style=_asset("report.css"),
            script=script,
            bundle=bundle,
            hashes=" ".join(f"'sha256-{_hash(one)}'" for one in (script, bundle)),
            version=version,
        )
    )


class _Plots:
    """The plots of a page by the section that they stand in."""

    def __init__(self) -> None:
        self.by_section: dict[str, list[Plot]] = {}

    def add(self, section: str, *plots: Plot | None) -> None:
        self.by_section.setdefault(section, []).extend(plot for plot in plots if plot is not None)

    def axes(self) -> dict[str, str]:
        """Those that all curves of losses can be seen over, and their titles."""
        tables = [plot.data[name] for name in ("loss", "validation") for plot in self.by_section[name]]
        return {
            axis: title
            for axis, title in AXES.items()
            if all(any(value is not None for value in table[axis]) for table in tables)
        }

    def data(self) -> dict[str, object]:
        """What the page's script reads: specs of plots, and tables, each of them once."""
        every = [plot for plots in self.by_section.values() for plot in plots]
        tables = {name: table for plot in every for name, table in plot.data.items()}
        plots = {plot.name: {"spec": plot.spec, "data": list(plot.data)} for plot in every}
        return {"plots": plots, "tables": tables, "axes": AXES}


def _distributions(influence: Quantiles | None, weight: Quantiles | None, number: int) -> Iterable[Plot | None]:
    words = "The line is the median sample, the dark band the middle half, the light one nine tenths."
    yield samples.distribution_plot(
        influence,
        f"influence-{number}",
        "Self-influence",
        "log₁₀ n",
        f"Squared norms of the samples' gradients. {words} A band that widens upwards is a tail of outliers.",
    )
    yield samples.distribution_plot(
        weight,
        f"weight-{number}",
        "Weights",
        "weight (1 is uniform)",
        f"What the samples counted for. {words} A band at 1 is uniform; one that reaches far decides by a few samples.",
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("presence_ds.trainer.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "percent": text.percent,
        "compact": text.compact,
        "shown": text.shown,
        "fixed": text.fixed,
        "signed": signed,
        "sentence": text.sentence,
        "first_shown": _first_shown,
    }
    environment.globals |= {"LEVELS": LEVELS, "VERDICTS": VERDICTS, "OUTSIZED": OUTSIZED}
    return environment


def _first_shown(steps: Sequence[MovedStep]) -> MovedStep:
    """The step whose samples are shown before any is chosen: the first spike, or what is nearest to one."""
    return min(steps, key=lambda step: ("spike", "high loss", "spread").index(step.why))


def _asset(name: str) -> str:
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg] # its stub has no defaults
    return str(bundle).replace("</script", "<\\/script")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
