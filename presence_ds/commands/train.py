"""``presence train RECIPE.yaml [--section.field value ...]``."""

import os
import warnings
from argparse import SUPPRESS

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.recipe_arguments import (
    check_datasets,
    check_recipe,
    make_recipe_parser,
    read_recipe,
    resolved_recipe,
)
from presence_ds.errors import ConfigError
from presence_ds.launch.environment import launched
from presence_ds.launch.slurm import slurm_step

HELP = "Train a model as a recipe says."
NOT_OURS = (
    "'set_vital' is deprecated",
    ".*(all_gather_into|reduce_scatter)_tensor. is deprecated",
)  # torchdata and DeepSpeed


def make_parser() -> ArgumentParser:
    """The fields of `Recipe`, and how many ranks to start."""
    return make_recipe_parser("presence train RECIPE.yaml", HELP, add_options)


def add_options(parser: ArgumentParser) -> None:
    """What is no field of `Recipe`."""
    parser.add_argument(
        "--num_processes",
        metavar="N",
        type=int | None,
        default=None,
        help="Ranks to start on this machine when no launcher has. null: one per GPU, or 2 without GPUs.",
    )
    parser.add_argument("--local_rank", type=int | None, default=None, help=SUPPRESS)  # the DeepSpeed launcher sets it


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Train on this rank; without a launcher, check the recipe and become the launcher."""
    step = None if launched() else slurm_step()
    if step is not None:
        step.check_shell()
    if step is not None and step.is_rank:
        from deepspeed.accelerator import get_accelerator

        accelerator = get_accelerator()
        if accelerator.device_name() != "cpu":
            step.check_devices(accelerator.device_count())
        os.environ |= step.rank_environment(accelerator.device_count())
    recipe, recipe_file = read_recipe(parser, parsed)
    if launched():
        from presence_ds.trainer.run import train

        for message in NOT_OURS:
            warnings.filterwarnings("ignore", message=message)
        train(recipe, recipe_file, resolved_recipe(parser, parsed, recipe, recipe_file))
    else:
        if parsed.num_processes is not None and parsed.num_processes < 1:
            raise ConfigError(f"num_processes is {parsed.num_processes}: it must be at least 1")
        check_recipe(recipe, recipe_file)

        from presence_ds.launch.launcher import launch, local_processes
        from presence_ds.trainer.building.device import hardware_has_bf16
        from presence_ds.trainer.ranks.leftovers import operator_folder
        from presence_ds.trainer.recipe.plan import make_plan

        processes = local_processes(parsed.num_processes)
        ranks = processes * (1 if step is None else step.nodes)
        make_plan(recipe, recipe_file, world_size=ranks, bf16_hardware=hardware_has_bf16())
        check_datasets(recipe)
        operator_folder()
        launch(arguments, parsed.num_processes, recipe.stop.signal_numbers, step)
