"""Every field of a recipe with values it cannot have: one line that names the field, never a traceback."""

import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml

from presence_ds.commands import estimate, train
from presence_ds.trainer.recipe.recipe import Recipe
from tests.trainer.recipe.test_bad_recipes import fails_with_one_line

Path_ = tuple[str | int, ...]
NUMBERS = [float("nan"), float("inf"), 10**30, "x"]
MAY_BE_INFINITE = {"data.sources[0].max_megabytes", "data.validation_sources[0].max_megabytes"}  # all of the source


def fields_of(section: Any, place: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every field of a dataclass and of those below it, with its type; a list's first element stands for all."""
    for name, kind in get_type_hints(section).items():
        yield (*place, name), kind
        options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        for option in options:
            listed = get_origin(option) is list
            inner = get_args(option)[0] if listed else option
            if dataclasses.is_dataclass(inner):
                yield from fields_of(inner, (*place, name, 0) if listed else (*place, name))


def wrong_values(place: Path_, kind: Any) -> list[Any]:
    """Values that no field of this type can have."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    kinds = {get_origin(option) or option for option in options}
    values: list[Any] = [] if NoneType in kinds else [None]
    if not kinds & {dict, Any} and not any(dataclasses.is_dataclass(option) for option in options):
        values.append({"a": 1})
    if any(dataclasses.is_dataclass(option) for option in options):
        return [*values, 5, "text", [1], {"no_such_field": 1}]
    if bool in kinds:
        return [*values, "maybe", 7, [True]]
    if kinds & {int, float}:
        values += [value for value in NUMBERS if value != float("inf") or name_of(place) not in MAY_BE_INFINITE]
    if str in kinds:
        values += ["two\nlines", "\0"]
    if list in kinds:
        values += [5, [[]]] if str not in kinds else [[[]]]
    return values


def name_of(place: Path_) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]


FIELDS = list(fields_of(Recipe))


@pytest.fixture(autouse=True)
def parsers_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the parser takes longer than all that it then does to a recipe."""
    for command, make_parser in PARSERS:
        monkeypatch.setattr(command, "make_parser", make_parser)


PARSERS = [(command, functools.cache(command.make_parser)) for command in (estimate, train)]


@pytest.mark.parametrize(("place", "kind"), FIELDS, ids=[name_of(place) for place, _ in FIELDS])
def test_wrong_values(
    place: Path_, kind: Any, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = yaml.safe_load(tiny_recipe.read_text())
    for value in wrong_values(place, kind):
        bad = tmp_path / "bad.yaml"
        bad.write_text(yaml.safe_dump(with_value(good, place, value)))
        line = fails_with_one_line([str(bad), "--num_processes", "2"], capsys)
        assert "Traceback" not in line
        named = [part for part in place if isinstance(part, str)][-2:]
        assert all(part in line for part in named), (value, line)
        assert len(line) < 1_000


def with_value(recipe: dict[str, Any], place: Path_, value: Any) -> dict[str, Any]:
    """A copy of the recipe with ``value`` at ``place``; sections and lists on the way are made.

    Of a field that may be a section or a list it becomes the one that ``place`` goes through.
    """
    changed = copy.deepcopy(recipe)
    node: Any = changed
    for part, following in itertools.pairwise(place):
        listed = isinstance(following, int)
        if isinstance(node, dict) and (node.get(part) is None or isinstance(node[part], list) != listed):
            node[part] = [{"name": "other", "path": "x.jsonl"}] if listed else {}
        node = node[part]
    node[place[-1]] = value
    return changed
