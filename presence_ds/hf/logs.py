"""The statistics of an optimizer step as the Trainer's reporters take them: flat, and finite numbers only."""

import math
from collections.abc import Mapping
from typing import Any

PREFIX = "presence/"


def flatten(statistics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of `engine.presence.statistics` under ``presence/NAME`` and ``presence/source/ID/NAME``.

    What is not finite (the loss of a source none of whose samples is) is left out: the Trainer writes its logs to
    trainer_state.json, and JSON has no word for it.
    """
    flat: dict[str, float] = {}
    for name, value in statistics.items():
        if name == "sources":
            for source, figures in value.items():
                flat |= {f"{PREFIX}source/{source}/{figure}": number for figure, number in figures.items()}
        elif name != "step" and not isinstance(value, str):
            flat[PREFIX + name] = value
    return {name: value for name, value in flat.items() if math.isfinite(value)}
