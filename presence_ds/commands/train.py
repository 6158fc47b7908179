"""``presence train RECIPE.yaml [--section.field value ...]``."""

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.rank_arguments import add_rank_options, find_step, start_ranks
from presence_ds.commands.recipe_arguments import make_recipe_parser, read_recipe, resolved_recipe
from presence_ds.launch.environment import launched

HELP = "Train a model as a recipe says."


def make_parser() -> ArgumentParser:
    """The fields of `Recipe`, and how many ranks to start."""
    return make_recipe_parser("presence train RECIPE.yaml", HELP, add_rank_options)


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Train on this rank; without a launcher, check the recipe and become the launcher."""
    step = find_step()
    recipe, recipe_file = read_recipe(parser, parsed)
    if not launched():
        start_ranks("train", recipe, recipe_file, parsed, arguments, step)

    from presence_ds.trainer.run import train

    train(recipe, recipe_file, resolved_recipe(parser, parsed, recipe, recipe_file))
