"""``presence status RUN_DIR [RUN_DIR ...] [--watch] [--every SECONDS] [--json]``."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from presence_ds.errors import ConfigError

HELP = "Tell what a run is doing, or several, from any node, without touching them."
DAY = 86_400  # seconds


def make_parser() -> ArgumentParser:
    """Which runs, and whether to go on looking."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=HELP)
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", help="Run directories; of one there are details, of several a table."
    )
    parser.add_argument("--watch", action="store_true", help="Look again and again, until all have ended.")
    parser.add_argument("--every", type=float, default=10.0, help="Seconds between two looks.")
    parser.add_argument("--json", action="store_true", help="Print JSON, a list of all runs.")
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Print it, once or again and again."""
    if not 0 < parsed.every <= DAY:
        raise ConfigError(f"every is {parsed.every}: it must be above 0 seconds, and at most {DAY}")

    from presence_ds.commands.status_report import show, watch

    paths = list(dict.fromkeys(path.absolute() for path in parsed.run_dirs))
    if parsed.watch:
        watch(paths, parsed.every, as_json=parsed.json)
    else:
        show(paths, as_json=parsed.json)
