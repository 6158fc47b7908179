"""The shape of a recipe's values, checked before they are parsed and again before they become dataclasses.

jsonargparse lets null, plain values in the place of sections, and repeated keys through.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from presence_ds.errors import ConfigError

MAX_DEPTH, MAX_VALUES = 50, 100_000  # far beyond any recipe: what YAML's anchors can blow up or tie in a knot
MAX_INTEGER = 2**63 - 1


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{name} stands twice in a section (line {node.start_mark.line + 1}): give it once")
        return super().construct_mapping(node, deep)


def check_recipe_file(path: Path, kind: type) -> None:
    """Raise `ConfigError` unless ``path`` is a YAML file with values of the shape of the dataclass ``kind``."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path} is not UTF-8 text (byte {error.start}): give a YAML file") from None
    except ConfigError as error:
        raise ConfigError(f"recipe {path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
        raise ConfigError(f"recipe {path} is not YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"recipe {path} holds no sections: it must begin with one, such as data:")
    _check_size(values, path)
    check_values(values, kind)


def check_values(values: Any, kind: Any, field: str = "") -> None:
    """Raise `ConfigError`, naming the field, if ``values`` cannot be of type ``kind``.

    That is: null where there has to be a value, anything but a mapping for a section, a list or mapping for a value,
    NaN, integers beyond 64 bits, and control characters in text. Unknown names and other types are jsonargparse's part.
    """
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if values is None:
        if NoneType not in options and Any not in options:
            raise ConfigError(f"{field} is null: it must be {_describe(kind)}, or be left out")
        return
    section = next((option for option in options if dataclasses.is_dataclass(option)), None)
    if section is not None:
        _check_section(values, section, field)
        return
    listed = next((option for option in options if get_origin(option) is list), None)
    if listed is not None and isinstance(values, list):
        for index, value in enumerate(values):
            check_values(value, get_args(listed)[0], f"{field}[{index}]")
    elif isinstance(values, list | Mapping) and not _holds_values(options):
        raise ConfigError(f"{field} is {values!r}: it must be {_describe(kind)}")
    elif isinstance(values, float) and math.isnan(values):
        raise ConfigError(f"{field} is nan: it must be {_describe(kind)}")
    elif isinstance(values, int) and abs(values) > MAX_INTEGER:
        raise ConfigError(f"{field} is {values}: it must be at most {MAX_INTEGER}")
    elif isinstance(values, str) and any(ord(character) < ord(" ") for character in values):
        raise ConfigError(f"{field} is {values!r}, which holds a control character: it must be {_describe(kind)}")


def _holds_values(options: tuple[Any, ...]) -> bool:
    return any((get_origin(option) or option) in (list, tuple, dict, Any) for option in options)


def _check_section(values: Any, section: Any, field: str) -> None:
    hints = get_type_hints(section)
    if isinstance(values, str):  # jsonargparse would take it for the path of another file
        raise ConfigError(f"{field} is {values!r}: it must be a section with fields such as {next(iter(hints))}")
    named = values if isinstance(values, Mapping) else getattr(values, "__dict__", None)
    if named is None:
        raise ConfigError(f"{field} is {values!r}: it must be a section with fields such as {next(iter(hints))}")
    for name, value in named.items():
        if name in hints:
            check_values(value, hints[name], f"{field}.{name}" if field else name)
        elif not isinstance(name, str):
            raise ConfigError(f"{field or 'the recipe'} has a field {name!r}: names of fields are text")


def _check_size(values: Any, path: Path) -> None:
    count, pending = 0, [(values, 0)]
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ConfigError(
                f"recipe {path} is nested more than {MAX_DEPTH} deep or holds more than {MAX_VALUES} values"
            )
        if isinstance(value, Mapping):
            pending += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            pending += [(inner, depth + 1) for inner in value]


def _describe(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_describe(option) for option in get_args(kind) if option is not NoneType)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    if dataclasses.is_dataclass(kind):
        return "a section"
    return DESCRIPTIONS.get(get_origin(kind) or kind, "a value")


DESCRIPTIONS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in one line",
    list: "a list",
    tuple: "a list",
    dict: "a section",
}
