"""How a command that runs on ranks is started: by a launcher that it becomes itself, by srun, deepspeed or torchrun."""

import os
import warnings
from argparse import SUPPRESS
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.recipe_arguments import check_datasets, check_recipe
from presence_ds.errors import ConfigError
from presence_ds.launch.environment import launched
from presence_ds.launch.slurm import SlurmStep, slurm_step
from presence_ds.trainer.recipe.recipe import Recipe

NOT_OURS = ".*(all_gather_into|reduce_scatter)_tensor. is deprecated"  # DeepSpeed


def add_rank_options(parser: ArgumentParser) -> None:
    """How many ranks to start."""
    parser.add_argument(
        "--num_processes",
        metavar="N",
        type=int | None,
        default=None,
        help="Ranks to start on this machine when no launcher has. null: one per GPU, or 2 without GPUs.",
    )
    parser.add_argument("--local_rank", type=int | None, default=None, help=SUPPRESS)  # the DeepSpeed launcher sets it


def find_step() -> SlurmStep | None:
    """The task of a job step of srun, if this process is one and no launcher's rank; one that is a rank becomes it."""
    step = None if launched() else slurm_step()
    if step is not None:
        step.check_shell()
    if step is not None and step.is_rank:
        from deepspeed.accelerator import get_accelerator

        accelerator = get_accelerator()
        if accelerator.device_name() != "cpu":
            step.check_devices(accelerator.device_count())
        os.environ |= step.rank_environment(accelerator.device_count())
    if launched():
        warnings.filterwarnings("ignore", message=NOT_OURS)
    return step


def start_ranks(
    command: str,
    recipe: Recipe,
    recipe_file: Path | None,
    parsed: Namespace,
    arguments: list[str],
    step: SlurmStep | None,
) -> NoReturn:
    """Check the recipe, and become the launcher of ``command`` with ``arguments``; ``step`` is of `find_step`.

    Raises:
        PresenceError: the first thing that is wrong with the recipe, before any rank is started.
    """
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
    launch([command, *arguments], parsed.num_processes, recipe.stop.signal_numbers, step)
