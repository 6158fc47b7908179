"""``presence dashboard [--project P] [--entity E] (--save | --file FILE)``."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from presence_ds.errors import ConfigError

HELP = "Make a workspace and a report of the runs of a wandb project."


def make_parser() -> ArgumentParser:
    """Of which project, and where to."""
    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description=f"{HELP} Runs with the same weights are groups, with mean and band; runs with PRESENCE and without "
        "stand side by side.",
    )
    parser.add_argument("--project", default="presence-ds", help="As wandb.project of the recipes.")
    parser.add_argument("--entity", type=str | None, default=None, help="User or team. null: the key's default.")
    parser.add_argument(
        "--save",
        action="store_true",
        help="Send them to wandb, in the place of those that are there: what was edited by hand is lost.",
    )
    parser.add_argument("--file", type=Path | None, default=None, help="Write them as JSON to this file, offline.")
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Send or write, and print where they are."""
    if parsed.save == (parsed.file is not None):
        raise ConfigError("give one of --save, to send the dashboard to wandb, and --file FILE, to write it as JSON")
    for name in ("project", "entity"):
        if (value := parsed[name]) is not None and (not value or "/" in value):
            raise ConfigError(f"{name} is {value!r}: it must be a name, without a slash")
    if parsed.file is not None:
        from presence_ds.trainer.run_directory.layout import write_json
        from presence_ds.trainer.trackers.dashboard import specifications

        try:
            write_json(parsed.file, specifications(parsed.entity or "", parsed.project))
        except OSError as error:
            raise ConfigError(f"file is {parsed.file}: it cannot be written ({error.strerror})") from None
        print(parsed.file)
        return
    from presence_ds.trainer.trackers.dashboard_saving import save

    for name, address in save(parsed.entity, parsed.project).items():
        print(f"{name}: {address}")
