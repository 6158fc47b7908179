"""The ``health`` section of a recipe."""

from dataclasses import dataclass
from typing import Literal

from presence_ds.sections import limited


@dataclass
class HealthConfig:
    """A check of every device and of the ways between them, before data is read.

    Every rank multiplies matrices whose product is known, every node (on one machine, every rank) exchanges data with
    its neighbours, and all ranks add numbers up. A run that fails ends with status 78 and a line that names the node.

    Args:
        enabled: Check.
        seconds: Each part of the check must be done within so long.
        slow_factor: A device or a node that takes so many times as long as the median is slow.
        on_slow: What a slow one leads to: a warning, or the end of the run.
    """

    enabled: bool = True
    seconds: float = limited(120.0, least=1)
    slow_factor: float = limited(3.0, above=1)
    on_slow: Literal["warn", "stop"] = "warn"
