"""``presence score RECIPE.yaml OUTPUT --checkpoint RUN_OR_CHECKPOINT | --model FOLDER_OR_NAME [--shard I/N]``."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.rank_arguments import add_rank_options, find_step, start_ranks
from presence_ds.commands.recipe_arguments import add_instead_of_section, make_recipe_parser, read_recipe
from presence_ds.errors import ConfigError
from presence_ds.launch.environment import launched

if TYPE_CHECKING:
    from presence_ds.trainer.scoring.request import Request

HELP = "Score every sample of a corpus by a trained model: self-influence, loss, alignment with a reference."


def make_parser() -> ArgumentParser:
    """The fields of `Recipe`, where to, what scores, and a shard."""
    description = f"{HELP} The same command goes on where it was stopped."
    return make_recipe_parser("presence score RECIPE.yaml OUTPUT", description, add_options)


def add_options(parser: ArgumentParser) -> None:
    """What is no field of `Recipe`."""
    parser.add_argument("output", type=Path, help="Folder of scores to make, or to go on with.")
    run_or_checkpoint = "A run or a checkpoint; of several, one option each, scores are summed."
    add_instead_of_section(parser, "checkpoint", metavar="PATH", help=run_or_checkpoint)
    pretrained = "Instead: a folder, or a name on the hub, of a model with weights."
    add_instead_of_section(parser, "model", metavar="PATH", help=pretrained)
    parser.add_argument(
        "--shard",
        metavar="I/N",
        type=str,
        default="0/1",
        help="Share of the rows to score, I from 0; all shares go into one OUTPUT.",
    )
    parser.add_argument(
        "--rows_per_file", metavar="N", type=int | None, default=None, help="Rows of a file. null: 65,536."
    )
    add_rank_options(parser)


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Score on this rank; without a launcher, check the recipe and become the launcher."""
    step = find_step()
    recipe, recipe_file = read_recipe(parser, parsed)
    request = read_request(parsed)
    if not launched():
        from presence_ds.trainer.scoring.models import scoring_recipe

        request.check(recipe)
        scoring = scoring_recipe(recipe, request)
        start_ranks("score", scoring, recipe_file, parsed, arguments, step)

    from presence_ds.trainer.scoring.run import score

    score(recipe, recipe_file, request)


def read_request(parsed: Namespace) -> "Request":
    """What is asked for beside the recipe.

    Raises:
        ConfigError: the shard is none, or there are two models.
    """
    from presence_ds.trainer.scores.layout import ROWS_PER_FILE
    from presence_ds.trainer.scoring.request import Request

    shard = re.fullmatch(r"(\d+)/(\d+)", parsed.shard)
    if shard is None:
        raise ConfigError(f"--shard is {parsed.shard}: it must be I/N, such as 0/4")
    if len(parsed.model_given) > 1:
        raise ConfigError(f"--model is given {len(parsed.model_given)} times: give it once")
    return Request(
        output=parsed.output,
        checkpoints=tuple(parsed.checkpoint_given),
        model=next(iter(parsed.model_given), None),
        shard=(int(shard[1]), int(shard[2])),
        rows_per_file=ROWS_PER_FILE if parsed.rows_per_file is None else parsed.rows_per_file,
    )
