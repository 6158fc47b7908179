"""``presence slurm RECIPE.yaml [--nodes N ...] [--section.field value ...]``."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.recipe_arguments import (
    check_datasets,
    check_recipe,
    make_recipe_parser,
    read_recipe,
    resolved_recipe,
)
from presence_ds.commands.slurm_job import read_site, ready_script, sbatch, sbatch_variables, write_run_directory
from presence_ds.errors import ConfigError
from presence_ds.launch.environment import CPU_RANKS
from presence_ds.trainer.run_directory.layout import RunDirectory, run_directory_path

HELP = "Submit a recipe to SLURM, with a run directory that says what was submitted."


def make_parser() -> ArgumentParser:
    """The fields of `Recipe`, and what is asked of SLURM."""
    description = (
        f"{HELP} Checks recipe, site file, partition and nodes at once. Account, partition and GPUs are those of "
        "the site file."
    )
    return make_recipe_parser("presence slurm RECIPE.yaml", description, add_options)


def add_options(parser: ArgumentParser) -> None:
    """What is no field of `Recipe`."""
    parser.add_argument("--nodes", metavar="N", type=int, default=1, help="Nodes of the job.")
    parser.add_argument("--time", type=str | None, default=None, help="Time limit. null: the template's.")
    parser.add_argument(
        "--partition", metavar="NAME", type=str | None, default=None, help="Partition. null: the site's."
    )
    parser.add_argument(
        "--template",
        type=Literal["train_preemptible", "train", "train_task_per_gpu"],
        default="train_preemptible",
        metavar="NAME",
        help="Which of slurm/*.sbatch: train_preemptible, train or train_task_per_gpu.",
    )
    parser.add_argument(
        "--sbatch",
        metavar="OPTIONS",
        type=dict[str, str],
        default={},
        help='More options of sbatch by their long names, such as {"qos": "high"}.',
    )
    parser.add_argument(
        "--site",
        type=Path | None,
        default=None,
        metavar="FILE",
        help="Site file. null: slurm/site.sh here, or elsewhere (docs/slurm.md).",
    )
    parser.add_argument("--dry-run", action="store_true", help="Show the batch script and leave nothing.")


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Check, write the run directory, submit; with --dry-run, check and show."""
    recipe, recipe_file = read_recipe(parser, parsed)
    check_recipe(recipe, recipe_file)
    if parsed.nodes < 1:
        raise ConfigError(f"nodes is {parsed.nodes}: it must be at least 1")
    site = read_site(parsed.site)
    per_node = site.gpus_per_node or CPU_RANKS

    from presence_ds.trainer.checkpoint.changed_recipe import submitted_changes
    from presence_ds.trainer.recipe.plan import make_plan

    plan = make_plan(recipe, recipe_file, world_size=parsed.nodes * per_node, bf16_hardware=True, runs_here=False)
    check_datasets(recipe)

    path = run_directory_path(recipe.run_dir, recipe_file)
    directory = RunDirectory(path)
    resolved = resolved_recipe(parser, parsed, recipe, recipe_file) | {"run_dir": str(path)}
    changed = submitted_changes(recipe, plan, resolved["deepspeed"], directory)
    options = {"job-name": f"presence-{path.name}", "nodes": str(parsed.nodes), "chdir": str(Path.cwd())}
    options["output"] = str(directory.slurm / "%x-%j.log")
    if parsed.template == "train_task_per_gpu":
        options["ntasks-per-node"] = str(per_node)
    options |= {name: getattr(parsed, name) for name in ("time", "partition") if getattr(parsed, name) is not None}
    options |= parsed.sbatch
    script, variables = ready_script(site, parsed.template, options, path), sbatch_variables(site, options)
    starts = sbatch("--test-only", script, variables)
    for change in changed:
        print(f"changed since the checkpoint: {change}")
    if parsed.dry_run:
        print(script)
        print(f"{parsed.nodes} nodes x {per_node} ranks; {starts}")
        return
    directory.claim(training_steps=recipe.training.steps, may_resume=recipe.checkpoint.resume != "never")
    write_run_directory(directory, script, resolved)
    job = sbatch("--parsable", script, variables).split(";")[0]
    print(f"job {job}: {parsed.nodes} nodes x {per_node} ranks, {directory.slurm / f'presence-{path.name}-{job}.log'}")
