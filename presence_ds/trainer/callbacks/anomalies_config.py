"""The ``anomalies`` section of a recipe."""

import math
from dataclasses import dataclass, field

from presence_ds.errors import ConfigError


@dataclass
class Limit:
    """How often a kind of anomaly may happen.

    Args:
        consecutive: Steps in a row with it that end the run. null: no limit.
        in_window: Steps with it among the last anomalies.window_steps that end the run. null: no limit.
    """

    consecutive: int | None = 25
    in_window: int | None = 100

    def validate(self, field: str, window_steps: int) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if self.consecutive is not None and self.consecutive < 1:
            raise ConfigError(f"{field}.consecutive is {self.consecutive}: it must be at least 1, or null")
        if self.in_window is not None and not 1 <= self.in_window <= window_steps:
            raise ConfigError(
                f"{field}.in_window is {self.in_window}: it must be from 1 to anomalies.window_steps "
                f"({window_steps}), or null"
            )


def _count_only() -> Limit:
    return Limit(consecutive=None, in_window=None)


@dataclass
class AnomaliesConfig:
    """Steps that went wrong: all are counted and logged, too many end the run with status 76 and no checkpoint.

    Args:
        window_steps: Optimizer steps over which in_window counts.
        spike_deviations: The mean loss of a step, or the logarithm of its gradient norm, is a spike if it lies more
            than so many standard deviations above the running mean.
        averaging_steps: Steps over which running mean and standard deviation are averaged, exponentially.
        warmup_steps: Steps of the run before spikes are looked for.
        nonfinite_steps: A sample had no finite loss or self-influence; it is left out of the step.
        skipped_steps: DeepSpeed did not update, because a gradient was not finite. With a dynamic loss scale (fp16)
            those before the first update do not count against the limit: that is how the scale is found.
        loss_spikes: The mean loss rose; no checkpoint is written in such a step.
        gradient_spikes: The gradient norm rose.
    """

    window_steps: int = 1000
    spike_deviations: float = 6.0
    averaging_steps: int = 100
    warmup_steps: int = 100
    nonfinite_steps: Limit = field(default_factory=Limit)
    skipped_steps: Limit = field(default_factory=Limit)
    loss_spikes: Limit = field(default_factory=Limit)
    gradient_spikes: Limit = field(default_factory=_count_only)

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        for name, least in {"window_steps": 1, "averaging_steps": 2, "warmup_steps": 2}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{field}.{name} is {getattr(self, name)}: it must be at least {least}")
        if not 0.0 < self.spike_deviations < math.inf:
            raise ConfigError(f"{field}.spike_deviations is {self.spike_deviations}: it must be above 0")
        for name, limit in vars(self).items():
            if isinstance(limit, Limit):
                limit.validate(f"{field}.{name}", self.window_steps)
