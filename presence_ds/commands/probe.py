"""``presence probe SCORES --clean A --noisy B [--column NAME] [--bootstrap N] [--json FILE]``."""

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.figures import add_json_option, show
from presence_ds.errors import ConfigError
from presence_ds.printable import printable

HELP = "Tell how far scores separate one source of a scored corpus from another."


def make_parser() -> ArgumentParser:
    """Which scores, of which sources."""
    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description=f"{HELP} Mean scores and their ratio, and the probability that a noisy sample has the higher one.",
    )
    parser.add_argument("scores", type=Path, help="Folder that presence score wrote.")
    parser.add_argument("--clean", type=str, required=True, help="A source.")
    parser.add_argument("--noisy", type=str, required=True, help="Another, whose scores should be higher.")
    parser.add_argument("--column", type=str, default="self_influence", help="Column of the scores, such as loss.")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="Draws of documents, for intervals of 95 %%. 0: no intervals."
    )
    parser.add_argument("--seed", type=int, default=0, help="Of the draws.")
    add_json_option(parser)
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Print a table, or write JSON."""
    if parsed.clean == parsed.noisy:
        raise ConfigError(f"noisy is {parsed.noisy}, as clean is: it must be another source")
    for name in ("bootstrap", "seed"):
        if getattr(parsed, name) < 0:
            raise ConfigError(f"{name} is {getattr(parsed, name)}: it must be at least 0")

    from presence_ds.trainer.scores.layout import open_scores
    from presence_ds.trainer.scores.probe import probe, read_sources

    names = [parsed.clean, parsed.noisy]
    sources = read_sources(open_scores(parsed.scores), names, parsed.column)
    clean, noisy = (sources[name] for name in names)
    figures = {
        "scores": str(parsed.scores),
        "column": parsed.column,
        "bootstrap": parsed.bootstrap,
        "seed": parsed.seed,
        "sources": {
            name: {
                "samples": len(source.scores),
                "documents": int(source.documents.max()) + 1,
                "left_out": source.left_out,
            }
            for name, source in sources.items()
        },
        **probe(clean, noisy, parsed.bootstrap, parsed.seed),
    }
    show(figures, parsed.json, lambda: _print(figures, names))


def _print(figures: dict[str, Any], names: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, emoji=False)
    for name in names:
        counts = figures["sources"][name]
        text = f"{counts['samples']:,} samples that start in {counts['documents']:,} documents"
        if counts["left_out"]:
            text += f", {counts['left_out']:,} without a score left out"
        console.print(Text(f"{printable(name)}: {text}"), soft_wrap=True)
    table = Table(escape(printable(figures["column"])), "", "95 % interval", box=None)
    clean, noisy = names
    for title, key in (
        (f"mean of {clean}", "clean"),
        (f"mean of {noisy}", "noisy"),
        ("ratio", "ratio"),
        ("AUC", "auc"),
    ):
        one = figures[key]
        interval = f"{one['low']:.4g} to {one['high']:.4g}" if "low" in one else "–"
        table.add_row(Text(printable(title)), "–" if one["estimate"] is None else f"{one['estimate']:.4g}", interval)
    console.print(table, highlight=False)
