"""What the weights and the sources of a run have been worth, in the summary and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table

from presence_ds.printable import printable
from presence_ds.trainer.callbacks.metrics_file import json_value

if TYPE_CHECKING:
    from presence_ds.reweighting import Worth
    from presence_ds.reweighting.value.past import PastWorth

WORDS = {  # of weightings, for a reader
    "in_use": "the weights in use",
    "uniform": "uniform weights",
    "paper_direct": "the paper's first stage, high scores up",
    "paper_inverse": "the paper's second, high scores down",
    "clip": "gradients clipped at the median norm",
    "normalized": "gradients at the same norm",
    "loss_saturating": "high losses weighed down",
    "calibrated": "calibrated weights",
}


def worth_figures(worth: Worth | PastWorth, source_names: list[str]) -> dict[str, Any]:
    """Plain values of the steps that ``worth`` is of: ``noise_scale`` in samples, ``gains`` and ``sources`` by name."""
    return {
        "noise_scale": worth.noise_scale.samples,
        "gains": {name: _plain(gain._asdict()) for name, gain in worth.gains.items()},
        "sources": {source_names[number]: _plain(source._asdict()) for number, source in worth.sources.items()},
    }


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: json_value(value) for name, value in figures.items()}


def print_worth(
    console: RichConsole, figures: dict[str, Any], mean_weights: dict[str, float], steps: str = "the last steps"
) -> None:
    """Tables of what sources and weights are worth.

    Args:
        figures: what `worth_figures` gives.
        mean_weights: of the samples of every source, in units of the mean over all.
        steps: that the figures are of, in words.
    """
    if figures["sources"]:
        _print_sources(console, figures["sources"], mean_weights)
    gains = figures["gains"]
    if not gains:
        console.print("What weights are worth cannot be told: too few steps, or samples that have nothing in common.")
        return
    table = Table("weights", "worth in batch size", "steps needed")
    for name in sorted(gains, key=lambda name: -(gains[name]["gain"] or 0.0)):
        gain = gains[name]
        needed = "–" if gain["speedup"] is None else f"{1 / gain['speedup']:.1%}"
        table.add_row(escape(printable(WORDS.get(name, name))), f"× {_with_error(gain['gain'], gain['error'])}", needed)
    console.print(table, highlight=False)
    scale = figures["noise_scale"]
    told = "cannot be told yet" if scale is None else f"{scale:,.0f} samples"
    console.print(f"over {steps}, without training with them; gradient noise scale: {told}", highlight=False)


def _print_sources(console: RichConsole, sources: dict[str, Any], mean_weights: dict[str, float]) -> None:
    table = Table("source", "share", "noise", "worth", "worth / noise", "verdict", "mean weight")
    for name, source in sorted(sources.items()):
        worth = _with_error(source["ratio"], source["error"])
        weight = f"{mean_weights[name]:.3f}" if name in mean_weights else "–"
        parts = [_with_error(source[part], None) for part in ("norm", "alignment")]
        table.add_row(escape(printable(name)), f"{source['share']:.1%}", *parts, worth, source["verdict"], weight)
    console.print(table, highlight=False)
    console.print(
        "noise: the squared norm of a source's gradients; worth: how far they agree with everybody else's. 1 is the "
        "mean of all samples, and without a source whose worth / noise is below 0.5 training is faster",
        highlight=False,
    )


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
