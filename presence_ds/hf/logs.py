"""The statistics of an optimizer step as the Trainer's reporters take them: flat, and numbers only."""

from collections.abc import Mapping
from typing import Any

PREFIX = "presence/"


def flatten(statistics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of `engine.presence.statistics` under ``presence/NAME`` and ``presence/source/ID/NAME``."""
    flat: dict[str, float] = {}
    for name, value in statistics.items():
        if name == "sources":
            for source, figures in value.items():
                flat |= {f"{PREFIX}source/{source}/{figure}": number for figure, number in figures.items()}
        elif name != "step" and not isinstance(value, str):
            flat[PREFIX + name] = value
    return flat
