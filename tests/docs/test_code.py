"""Commands, recipes and Python in README and docs/ are such as the program takes."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from presence_ds import cli
from presence_ds.errors import ConfigError
from tests.docs.pages import CODE, Code
from tests.trainer.conftest import ROOT

PROGRAMS = ("presence", "make", "python", "deepspeed")
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
ANY = {"--section.field", "--data.field"}  # they stand for every field of a recipe, or of its section


def lines(code: Code) -> list[str]:
    """What would be typed: lines of blocks without a language, those that are continued in one."""
    if code.language is None:
        return [code.text]
    return re.sub(r"\n +", " ", code.text).splitlines() if code.language == "" else []


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where each command stands, and its words: without settings of the environment, brackets and comments."""
    for code in CODE:
        for line in lines(code):
            if re.search(rf"(?:^|\s)(?:{'|'.join(PROGRAMS)}) ", line):
                words = shlex.split(re.sub(r"[][]| \.\.\.", "", line) if "[--" in line else line, True)
                while words and ASSIGNMENT.fullmatch(words[0]):
                    del words[0]
                if words and words[0] in PROGRAMS and len(words) > 1:
                    yield code.where, words


COMMANDS = list(commands())


def of(program: str) -> list[tuple[str, list[str]]]:
    """The commands of a program, without its name."""
    found = [(where, words[1:]) for where, words in COMMANDS if words[0] == program]
    assert found
    return found


@cache
def parser_of(command: str) -> ArgumentParser:
    return cli.COMMANDS[command].make_parser()


def check_arguments(where: str, command: str, words: list[str]) -> None:
    """Options are known; words without a placeholder for an option are parsed as they stand."""
    parser = parser_of(command)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    for option in options:
        assert option in ANY or option in parser._option_string_actions, f"{where}: {command} has no {option}"
    if (ANY | {"--help", "--print_config"}) & {*options} or any("|" in word or word.isupper() for word in words[1:]):
        return
    words = [str(ROOT / "recipes" / "quickstart.yaml") if word.endswith(".yaml") else word for word in words]
    try:
        parsed = parser.parse_args(words)
    except ArgumentError as error:
        pytest.fail(f"{where}: {error}")
    if command == "new":
        assert [*(ROOT / "recipes").rglob(f"{parsed.recipe}.yaml")], f"{where}: there is no recipe {parsed.recipe}"


def test_presence_takes_its_commands() -> None:
    for where, (command, *words) in of("presence"):
        if not command.startswith("--"):
            assert command in cli.COMMANDS, f"{where}: there is no presence {command}"
            if words:
                check_arguments(where, command, words)


def test_make_has_the_targets() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for where, words in of("make"):
        for word in words:
            assert ASSIGNMENT.fullmatch(word) or word in targets, f"{where}: there is no make {word}"


def test_modules_that_are_run_are_there() -> None:
    """And so are their options: arguments of argparse, or parameters of the function that jsonargparse calls."""
    for where, (option, name, *words) in of("python"):
        if option == "-m":
            module = find_spec(name)
            assert module is not None, f"{where}: there is no {name}"
            if module.submodule_search_locations is not None and name.startswith(("benchmarks.", "study")):
                module = find_spec(f"{name}.__main__")
                assert module is not None, f"{where}: {name} cannot be run"
            source = Path(str(module.origin)).read_text()
            for word in words:
                if given := re.match(r"--(\w+)", word):
                    assert re.search(rf'\b{given[1]}: |"--{given[1]}"', source), f"{where}: {name} has no {given[0]}"


def test_deepspeed_is_given_what_is_there() -> None:
    for where, words in of("deepspeed"):
        if words[0] == "--module":
            assert find_spec(words[1]) is not None, f"{where}: there is no {words[1]}"
            check_arguments(where, words[2], words[3:])
        else:
            assert (ROOT / words[-1]).is_file(), f"{where}: there is no {words[-1]}"


def test_recipes_in_blocks_are_read(tmp_path: Path) -> None:
    blocks = [code for code in CODE if code.language == "yaml"]
    assert blocks
    for code in blocks:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(code.text)
        try:
            parser_of("train").parse_args([str(recipe)])
        except (ArgumentError, ConfigError) as error:
            pytest.fail(f"{code.where}: {error}")


def test_python_in_blocks_compiles() -> None:
    blocks = [code for code in CODE if code.language == "python"]
    assert blocks
    for code in blocks:
        compile(code.text, code.where, "exec")


def test_other_blocks_say_what_they_are() -> None:
    """A block in a language that is checked nowhere would be one that can be wrong."""
    for code in CODE:
        assert code.language in (None, "", "python", "yaml", "text", "{toctree}"), code.where
