"""Which fields of a section say something: what is stated and would have no effect is refused, not passed over."""

from dataclasses import fields
from typing import Any


def stated(section: Any) -> dict[str, Any]:
    """Fields of a dataclass of plain defaults that are not at their default, with their values."""
    values = {one.name: getattr(section, one.name) for one in fields(section)}
    return {name: value for name, value in values.items() if value != getattr(type(section), name)}
