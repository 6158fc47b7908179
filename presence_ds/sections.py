"""Sections of settings: the numbers that a field may have, and what jsonargparse lets through.

Its restricted types check a value that is parsed, and no dataclass that is made in Python; of a field that may be null,
their message is a list of types that the value does not have. So a range is stated beside a field's default, and
checked wherever the value comes from.
"""

from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from itertools import chain
from math import inf, isfinite
from numbers import Real
from operator import ge, gt, le, lt
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from presence_ds.errors import ConfigError

LARGEST_INTEGER = 2**63 - 1  # that a tensor holds
BOUNDS = {"least": ("at least", ge), "above": ("above", gt), "most": ("at most", le), "below": ("below", lt)}


def limited(default: Any, **bounds: float) -> Any:
    """A field of a dataclass with the numbers it may have, beside the words and None that its type names.

    Args:
        default: of the field.
        bounds: ``least`` or ``above``, ``most`` or ``below``. Without an upper one numbers are finite.
    """
    if not bounds.keys() & {"most", "below"}:
        bounds["below"] = inf
    return field(default=default, metadata=bounds)


def check_ranges(section: Any, name: str = "") -> None:
    """Raise `ConfigError` for the first number out of its range in the dataclass ``section`` or a section inside it.

    What is no number is refused in the place of one, as jsonargparse does with what it parses.

    ``name``: the section's, before those of its fields.
    """
    for one in fields(section):
        value, whole_name = getattr(section, one.name), f"{name}.{one.name}" if name else one.name
        if is_dataclass(value):
            check_ranges(value, whole_name)
        elif one.metadata:
            options = get_args(one.type)
            null = ", or null" if NoneType in options else ""
            if not isinstance(value, Real):
                if not (value is None and null) and value not in chain(*map(get_args, options)):
                    raise ConfigError(f"{whole_name} is {value!r}: it must be a number{null}")
            elif any(not BOUNDS[kind][1](value, bound) for kind, bound in one.metadata.items()):
                right = " and ".join(
                    "finite" if bound == inf else f"{BOUNDS[kind][0]} {bound}"
                    for kind, bound in one.metadata.items()
                    if bound != inf or not isfinite(value)
                )
                raise ConfigError(f"{whole_name} is {value}: it must be {right}{null}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if is_dataclass(item):
                    check_ranges(item, f"{whole_name}[{index}]")


def check_shape(values: Any, kind: Any, name: str = "") -> None:
    """Raise `ConfigError` for null in the place of a value, a plain value in that of a section, and the unstorable.

    That is an integer beyond 64 bits, and text with control characters, which no path and no name may have.

    Other types, and names of no field, are jsonargparse's part.

    Args:
        values: parsed YAML or JSON, or a namespace of jsonargparse's.
        kind: type that they are to become: a dataclass, or that of a field.
        name: the section's or field's.
    """
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    section = next((option for option in options if is_dataclass(option)), None)
    listed = next((option for option in options if get_origin(option) is list), None)
    if values is None:
        if NoneType not in options and Any not in options:
            raise ConfigError(f"{name} is null: give it a value, or leave it out")
    elif listed is not None and isinstance(values, list):
        for index, value in enumerate(values):
            check_shape(value, get_args(listed)[0], f"{name}[{index}]")
    elif section is not None:
        hints = get_type_hints(section)
        named = values if isinstance(values, Mapping) else getattr(values, "__dict__", None)
        if named is None:
            raise ConfigError(f"{name} is {values!r}: it must be a section with fields such as {next(iter(hints))}")
        for field_name, value in named.items():
            if field_name in hints:
                check_shape(value, hints[field_name], f"{name}.{field_name}" if name else field_name)
            elif not isinstance(field_name, str):  # on: and yes: are true to YAML
                raise ConfigError(f"{name or 'the recipe'} has a field {field_name!r}: names of fields are text")
    elif isinstance(values, int) and abs(values) > LARGEST_INTEGER:
        raise ConfigError(f"{name} is {values}: it must be at most {LARGEST_INTEGER}")
    elif isinstance(values, str) and any(ord(character) < ord(" ") for character in values):
        raise ConfigError(f"{name} is {values!r}, which holds a control character: it must be text in one line")


def stated(section: Any) -> dict[str, Any]:
    """Fields of a dataclass that are not at their default, with their values.

    What is stated and would have no effect is refused, not passed over.
    """
    default = type(section)()
    values = {one.name: getattr(section, one.name) for one in fields(section)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}
