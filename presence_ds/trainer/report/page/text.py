"""Text and numbers as the page shows them."""

import json
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from presence_ds.printable import printable

NONE = "–"
T = TypeVar("T")


def visible(text: str) -> str:
    """``text`` with its lines kept, and what a browser would obey or not show as an escape sequence of Python's.

    It is not HTML yet: the template escapes it.
    """
    lines = "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))
    return lines.encode("utf-8", "backslashreplace").decode()  # bytes of names that are not UTF-8


def made_visible(value: T) -> T:
    """A copy of dataclasses, lists and dicts with every text `visible`, in one line unless it is a field ``text``."""
    return cast(T, _made_visible(value, lines=False))


def _made_visible(value: Any, *, lines: bool) -> Any:
    if isinstance(value, str):
        return visible(value if lines else value.replace("\n", "\\n"))
    if isinstance(value, (list, tuple)):
        return [_made_visible(one, lines=lines) for one in value]
    if isinstance(value, dict):
        return {_made_visible(name, lines=False): _made_visible(one, lines=lines) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{name: _made_visible(part, lines=name == "text") for name, part in parts.items()})
    return value


def script_json(value: Any) -> str:
    """JSON that may stand in a script tag: no ``<``, ``>`` or ``&``, and nothing that is not ASCII."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits, thousands apart; – where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    if isinstance(value, int) or value == 0 or 1e4 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    if not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %".replace("-", "−")


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after the point."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.{digits}f}".replace("-", "−")


def compact(value: float | None) -> str:
    """A large number in three or four figures: 1.23 M."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and size > 1e3):
            return f"{value / size:.3g} {letter}"
    return number(value, 3)


def sentence(words: str) -> str:
    """Words as a sentence of their own."""
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""


def shown(value: Any) -> str:
    """A value of a configuration."""
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
