"""Numbers as a report holds them."""

from collections.abc import Sequence
from typing import Any


def plain(value: Any) -> float | None:
    """A number of six digits, as JSON holds it; None for what is none, or not finite."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.6g}")


def plain_list(values: Sequence[Any]) -> list[float | int | None]:
    """As `plain`, of each."""
    return [plain(value) for value in values]
