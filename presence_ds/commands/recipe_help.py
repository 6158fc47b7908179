"""``--help`` of the commands that take a recipe: a page that fits a screen, and the fields of a section on request."""

from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, get_args, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentError, ArgumentParser

from presence_ds.trainer.recipe.recipe import Recipe

ALL = "all"


class RecipeHelp(Action):
    """``-h``, ``--help [SECTION]``: print a page and exit.

    Args:
        add_options: adds the command's own arguments to a parser.
    """

    def __init__(
        self, option_strings: list[str], *, add_options: Callable[[ArgumentParser], None], **options: Any
    ) -> None:
        super().__init__(option_strings, nargs="?", metavar="SECTION", **options)
        self._add_options = add_options

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Print the first page, the one of the section or field ``values``, or everything."""
        if values == ALL:
            parser.print_help()
        else:
            path, section = self._find_section(values or "")
            usage = parser.usage.split(" [options]")[0]
            page = _section_page(usage, path, section) if path else self._first_page(usage, parser.description)
            page.print_help()
        parser.exit()

    def _first_page(self, usage: str, description: str) -> ArgumentParser:
        command = usage.split(" RECIPE.yaml")[0]
        sections = [f"  {name:12}{_summary(name)}" for name, kind in _fields(Recipe).items() if _section_of(kind)]
        end = [
            f"sections of a recipe; {command} --help SECTION explains one, --help {ALL} every one:",
            *sections,
            "",
            f"example: {usage.replace('RECIPE', 'quickstart')} --data.sequence_length 256",
        ]
        page = ArgumentParser(
            usage=f"{usage} [options] [--SECTION.FIELD VALUE ...]",
            description=fill(description, get_terminal_size().columns - 2),  # as argparse does
            epilog="\n".join(end),
            formatter_class=RawDescriptionHelpFormatter,
            add_help=False,
        )
        page.add_argument("recipe", metavar="RECIPE.yaml", help="YAML file with sections; later options override it.")
        self._add_options(page)
        for name, kind in _fields(Recipe).items():
            if not _section_of(kind):
                page.add_argument(f"--{name}", metavar="PATH", help=f"{_summary(name)}.")
        page.add_argument("--print_config", action="store_true", help="Print the recipe that results, and exit.")
        return page

    def _find_section(self, path: str) -> tuple[str, Any]:
        """Path and dataclass of the section at ``path``, or else of the one that the field lies in."""
        found = ""
        section: Any = Recipe
        inner: Any = Recipe
        for name in path.split(".") if path else ():
            if inner is None or name not in _fields(inner):
                known = ", ".join(name for name, kind in _fields(Recipe).items() if _section_of(kind))
                raise ArgumentError(self, f"{path} is no section of a recipe: it must be one of {known}, or {ALL}")
            inner = _section_of(_fields(inner)[name])
            if inner is not None:
                found, section = f"{found}.{name}" if found else name, inner
        return found, section


def _section_page(usage: str, path: str, section: Any) -> ArgumentParser:
    page = ArgumentParser(usage=f"{usage} [--{path}.FIELD VALUE ...]", add_help=False)
    page.add_class_arguments(section, path)
    return page


def _fields(section: Any) -> dict[str, Any]:
    """Types of a dataclass' fields by name."""
    hints = get_type_hints(section)
    return {item.name: hints[item.name] for item in fields(section)}


def _section_of(kind: Any) -> Any:
    """The dataclass that a field holds, be it optional or a list of them; None if it holds a value."""
    if is_dataclass(kind):
        return kind
    return next((found for inner in get_args(kind) if (found := _section_of(inner))), None)


def _summary(name: str) -> str:
    """First sentence of what `Recipe` says of a field."""
    said = {item.arg_name: item.description or "" for item in parse(Recipe.__doc__ or "").params}
    return " ".join(said[name].split()).split(". ")[0].rstrip(".")
