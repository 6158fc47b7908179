"""A recipe on the command line: ``RECIPE.yaml [--section.field value ...]``, alike for every command that takes one."""

from argparse import SUPPRESS
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace

from presence_ds.commands.recipe_file import check_recipe_file
from presence_ds.commands.recipe_help import ALL, RecipeHelp
from presence_ds.data import fill_from_prepared
from presence_ds.data.sources.config import SourceConfig
from presence_ds.data.sources.finding import find_files, is_remote
from presence_ds.errors import ConfigError
from presence_ds.sections import check_shape
from presence_ds.trainer.recipe.deepspeed import read_deepspeed_json
from presence_ds.trainer.recipe.recipe import Recipe, find_beside_recipe
from presence_ds.trainer.run_directory.layout import RunDirectory

SECTIONS = {section.name for section in fields(Recipe)}


def make_recipe_parser(usage: str, description: str, add_options: Callable[[ArgumentParser], None]) -> ArgumentParser:
    """A parser of the fields of `Recipe`, and of the command's own arguments.

    Args:
        usage: of the command, without fields and options; has RECIPE.yaml in it.
        description: what the command does.
        add_options: adds the command's own arguments, of other names than the recipe's.
    """
    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        usage=f"{usage} [options] [--SECTION.FIELD VALUE ...]",
        description=description,
        add_help=False,
    )
    about = f"A first page; the fields of a section, or {ALL}, and exit."
    parser.add_argument("-h", "--help", action=RecipeHelp, add_options=add_options, help=about)
    parser.add_argument("recipe", action=RecipeFile, help="YAML file with the fields below; later options override it.")
    parser.add_class_arguments(Recipe)
    add_options(parser)
    return parser


def add_instead_of_section(parser: ArgumentParser, section: str, **options: Any) -> None:
    """Add an option ``--SECTION VALUE``, which may be repeated, to ``parser``; its values are in ``SECTION_given``.

    Of jsonargparse it is the one that reads a whole section of the recipe from a file, which is not wanted then.
    """
    dest, option = f"{section}_given", f"--{section}"
    loads = next((action for action in parser._actions if option in action.option_strings), None)
    if loads is None:  # a page of help
        parser.add_argument(option, dest=dest, **options)
        return

    def append(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not args:  # jsonargparse makes it anew
            return super(kind, self).__call__(**kwargs)
        _, namespace, value, *_ = args
        namespace[dest] = [*(namespace.get(dest) or []), value]

    parser.add_argument(f"--{dest}", type=list[str], default=[], help=SUPPRESS)
    kind: Any = type("AppendingAction", (type(loads),), {"__call__": append})
    loads.__class__ = kind


class RecipeFile(ActionConfigFile):
    """A configuration file as a positional argument, which jsonargparse itself only takes as an option."""

    def __init__(self, **kwargs: Any) -> None:
        super(ActionConfigFile, self).__init__(**kwargs, nargs="?")

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        if values is not None:
            for name, default in parser.get_defaults().items():
                if name.split(".")[0] in SECTIONS and cfg.get(name, default) != default:
                    raise ArgumentError(self, f"give the recipe before --{name}, which overrides it")
            if Path(values).exists():  # jsonargparse has words for a missing one
                check_recipe_file(Path(values), Recipe)
            super().__call__(parser, cfg, values, option_string)


def read_recipe(parser: ArgumentParser, parsed: Namespace) -> tuple[Recipe, Path | None]:
    """The recipe as dataclasses, and the file it came from.

    Raises:
        ConfigError: a value is missing or null, of the wrong type, no section where there has to be one, or out of any
            range.
    """
    check_shape(Namespace(**{name: value for name, value in vars(parsed).items() if name in SECTIONS}), Recipe)
    try:
        values = vars(parser.instantiate(parsed))
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    recipe = Recipe(**{name: value for name, value in values.items() if name in SECTIONS})
    return recipe, Path(parsed.recipe[0].absolute) if parsed.recipe else None


def resolved_recipe(
    parser: ArgumentParser, parsed: Namespace, recipe: Recipe, recipe_file: Path | None
) -> dict[str, Any]:
    """The recipe as plain values, overrides included, that can be read from another place."""
    values = {name: value for name, value in yaml.safe_load(parser.dump(parsed)).items() if name in SECTIONS}
    values["deepspeed"] = str(find_beside_recipe(recipe.deepspeed, recipe_file, "deepspeed"))
    return values


def check_recipe(recipe: Recipe, recipe_file: Path | None, *, reads_text: bool = True) -> None:
    """Check every value by itself, and that the files are there that it names: what needs neither torch nor a network.

    ``reads_text``: whether the command does, so that the sources have to be there.

    Raises:
        ConfigError: the first value that cannot be used.
        DataError: a source or ``data.prepared`` is not there.
    """
    fill_from_prepared(recipe.data)
    recipe.validate()
    if reads_text:
        check_files(recipe)
    read_deepspeed_json(find_beside_recipe(recipe.deepspeed, recipe_file, "deepspeed"))


def check_files(recipe: Recipe) -> None:
    """Raise `DataError` for the first source of a validated ``recipe`` on this machine that is not there."""
    for source in _sources(recipe):
        if source.format != "hub":
            find_files(source)


def check_datasets(recipe: Recipe) -> None:
    """Raise `DataError` for the first dataset of the hub of a validated ``recipe`` that is not there.

    Those that are not streamed are downloaded. Those that are have been found before where a run goes on, and it does
    so with their commits of then.
    """
    streamed = recipe.data.streaming is not None
    pinned = streamed and recipe.run_dir is not None and RunDirectory(Path(recipe.run_dir)).hub_commits.is_file()
    for source in _sources(recipe):
        if source.format == "hub" and not (pinned and is_remote(source)):
            find_files(source, streamed)


def _sources(recipe: Recipe) -> list[SourceConfig]:
    """Those that the run itself reads."""
    data = recipe.data
    return [] if data.prepared is not None else [*data.sources, *(data.validation_sources or [])]
