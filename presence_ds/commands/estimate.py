"""``presence estimate RECIPE.yaml [--ranks N] [--section.field value ...]``."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from presence_ds.commands.recipe_arguments import check_recipe, make_recipe_parser, read_recipe
from presence_ds.errors import ConfigError

HELP = (
    "Tell what a recipe needs: memory per rank at every ZeRO stage, tokens per step, and what scoring adds. Needs no "
    "GPU, reads no text and makes no weights."
)


def make_parser() -> ArgumentParser:
    """The fields of `Recipe`, and a number of ranks."""
    return make_recipe_parser("presence estimate RECIPE.yaml", HELP, add_options)


def add_options(parser: ArgumentParser) -> None:
    """What is no field of `Recipe`."""
    parser.add_argument(
        "--ranks",
        metavar="N",
        type=int | None,
        default=None,
        help="Ranks of the run. null: as many as train starts on this machine.",
    )


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Print what the recipe comes to."""
    recipe, recipe_file = read_recipe(parser, parsed)
    if parsed.ranks is not None and parsed.ranks < 1:
        raise ConfigError(f"ranks is {parsed.ranks}: it must be at least 1")
    check_recipe(recipe, recipe_file, reads_text=False)

    from presence_ds.commands.estimate_report import print_estimate
    from presence_ds.launch.launcher import local_processes
    from presence_ds.trainer.estimate.estimate import estimate

    print_estimate(Console(), estimate(recipe, recipe_file, local_processes(parsed.ranks)))
