"""The command line: ``presence train RECIPE.yaml [--section.field value ...]``."""

import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace

from presence_ds.data.sources import find_files
from presence_ds.errors import ConfigError, PresenceError, Stopped
from presence_ds.trainer.distributed import environment_rank, launched
from presence_ds.trainer.launcher import launch, local_processes, set_environment_defaults
from presence_ds.trainer.plan import make_plan
from presence_ds.trainer.precision import hardware_has_bf16
from presence_ds.trainer.recipe import Recipe, find_beside_recipe

NOT_RECIPE = ("recipe", "num_processes", "local_rank")
NOT_OURS = (
    "'set_vital' is deprecated",
    ".*(all_gather_into|reduce_scatter)_tensor. is deprecated",
)  # torchdata and DeepSpeed
GRACE = 20.0  # seconds


def main(arguments: list[str] | None = None) -> None:
    """Run a command; bad input ends in a line on standard error and exit status 1, an early stop in one and its own."""
    set_environment_defaults()
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except Stopped as stopped:  # on every rank
        if environment_rank() == 0:
            print(f"presence: {stopped}", file=sys.stderr, flush=True)
        sys.exit(stopped.status)
    except PresenceError as error:
        if environment_rank() != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            time.sleep(GRACE)  # rank 0 has the same error as a rule, and the launcher then ends this process in silence
        print(f"presence: error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.status)


def run(arguments: list[str]) -> None:
    """Parse, then train on this rank; without a launcher, check the recipe and become the launcher.

    Raises:
        PresenceError: what is wrong with the input, in one line.
    """
    parser = ArgumentParser(
        prog="presence", exit_on_error=False, description="Pre-training weighted by self-influence."
    )
    commands = parser.add_subcommands(required=True, dest="command")
    train_parser = make_train_parser()
    commands.add_subcommand("train", train_parser, help="Train a model as a recipe says.")
    try:
        parsed = parser.parse_args(arguments).train
        recipe, recipe_file = read_recipe(train_parser, parsed)
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if launched():
        from presence_ds.trainer.run import train

        for message in NOT_OURS:
            warnings.filterwarnings("ignore", message=message)
        train(recipe, recipe_file, resolved_recipe(train_parser, parsed, recipe, recipe_file))
    else:
        if parsed.num_processes is not None and parsed.num_processes < 1:
            raise ConfigError(f"num_processes is {parsed.num_processes}: it must be at least 1")
        processes = local_processes(parsed.num_processes)
        make_plan(recipe, recipe_file, world_size=processes, bf16_hardware=hardware_has_bf16())
        for source in [*recipe.data.sources, *(recipe.data.validation_sources or [])]:
            find_files(source)
        launch(arguments[1:], parsed.num_processes, recipe.stop.signal_numbers)


def make_train_parser() -> ArgumentParser:
    """The parser of ``presence train``: the fields of `Recipe`."""
    parser = ArgumentParser(exit_on_error=False, description="Train a model as a recipe says.")
    parser.add_argument("recipe", action=RecipeFile, help="YAML file with the fields below; later options override it.")
    parser.add_argument(
        "--num_processes",
        type=int | None,
        default=None,
        help="Ranks to start on this machine when no launcher has. null: one per GPU, or 2 without GPUs.",
    )
    parser.add_argument("--local_rank", type=int | None, default=None, help="Set by the DeepSpeed launcher.")
    parser.add_class_arguments(Recipe)
    return parser


class RecipeFile(ActionConfigFile):
    """A configuration file as a positional argument, which jsonargparse itself only takes as an option."""

    def __init__(self, **kwargs: Any) -> None:
        super(ActionConfigFile, self).__init__(**kwargs, nargs="?")

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        if values is not None:
            for name, default in parser.get_defaults().items():
                if name not in NOT_RECIPE and cfg.get(name, default) != default:
                    raise ArgumentError(self, f"give the recipe before --{name}, which overrides it")
            super().__call__(parser, cfg, values, option_string)


def read_recipe(parser: ArgumentParser, parsed: Namespace) -> tuple[Recipe, Path | None]:
    """The recipe as dataclasses, and the file it came from."""
    fields = vars(parser.instantiate(parsed))
    recipe = Recipe(**{name: value for name, value in fields.items() if name not in NOT_RECIPE})
    return recipe, Path(parsed.recipe[0].absolute) if parsed.recipe else None


def resolved_recipe(
    parser: ArgumentParser, parsed: Namespace, recipe: Recipe, recipe_file: Path | None
) -> dict[str, Any]:
    """The recipe as plain values, overrides included, that can be read from another place."""
    values = yaml.safe_load(parser.dump(parsed))
    for name in NOT_RECIPE:
        values.pop(name, None)
    values["deepspeed"] = str(find_beside_recipe(recipe.deepspeed, recipe_file, "deepspeed"))
    return values
