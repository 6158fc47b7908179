"""``presence gain RUN_DIR [--first_step N] [--last_step N] [--weights YAML] [--json FILE]``."""

import sys
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.figures import add_json_option, show
from presence_ds.errors import ConfigError
from presence_ds.printable import printable

HELP = "Tell what the weights and the sources of a run were worth, and what other weights would have been."


def make_parser() -> ArgumentParser:
    """Which run, which of its steps, and which weights beside those that are always compared."""
    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description=f"{HELP} From the score records of a run with presence.alignment true, without training.",
    )
    parser.add_argument("run_dir", type=Path, help="A run directory; the run may be in progress.")
    parser.add_argument(
        "--first_step",
        type=int,
        default=1,
        help="Gains change over a run, most of all early: compare its beginning with its end. Calibrated weights begin "
        "to learn here.",
    )
    parser.add_argument("--last_step", type=int | None, default=None, help="null: the last that is recorded.")
    parser.add_argument(
        "--weights",
        type=dict[str, Any],
        default={},
        help="Weights to compare, by names of yours: fields of a recipe's presence section, such as '{mild: "
        "{normalizer: rank, schedule: {kind: constant, tau_direct: -0.3}}, tight: {weighting: {kind: clip, quantile: "
        "0.3}}}'. Of schedules only kind constant, of signals all but leverage.",
    )
    parser.add_argument(
        "--alignment_with",
        type=Literal["step", "reference"] | None,
        default=None,
        help="What samples are taken to be good for: the mean gradient of their step's others, or a trusted stream's. "
        "null: as in the run.",
    )
    add_json_option(parser)
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Print a table, or write JSON."""
    if parsed.first_step < 1:
        raise ConfigError(f"first_step is {parsed.first_step}: it must be at least 1")
    if parsed.last_step is not None and parsed.last_step < parsed.first_step:
        raise ConfigError(f"last_step is {parsed.last_step}: it must be at least first_step, {parsed.first_step}")

    from presence_ds.trainer.gain.gain import past_figures
    from presence_ds.trainer.gain.weightings import read_weightings

    weightings = read_weightings(parsed.weights)
    figures = past_figures(parsed.run_dir, weightings, parsed.first_step, parsed.last_step, parsed.alignment_with)
    show(figures, parsed.json, lambda: _print(figures))


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console

    from presence_ds.trainer.callbacks.worth_report import print_worth

    every = {name: source["mean_weight"] for name, source in figures["sources"].items()}
    means = {name: mean for name, mean in every.items() if mean is not None}
    steps = f"steps {figures['first_step']} to {figures['last_step']}"
    console = Console(file=sys.stdout, emoji=False)
    number = f"{figures['samples']:,} samples that count in {figures['steps']:,} steps"
    name = printable(figures["run_dir"])
    console.print(f"{name}: {steps}, {number}", highlight=False, soft_wrap=True, markup=False)
    if figures["calibrated_without"]:
        missing = " and ".join(figures["calibrated_without"])
        console.print(f"calibrated weights go without {missing}, which not all of these steps have", highlight=False)
    print_worth(console, figures, means, steps)
