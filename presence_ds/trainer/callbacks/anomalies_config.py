"""The ``anomalies`` section of a recipe."""

from dataclasses import dataclass, field

from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass
class Limit:
    """How often a kind of anomaly may happen.

    Args:
        consecutive: Steps in a row with it that end the run. null: no limit.
        in_window: Steps with it among the last anomalies.window_steps that end the run. null: no limit.
    """

    consecutive: int | None = limited(25, least=1)
    in_window: int | None = limited(100, least=1)


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

    window_steps: int = limited(1000, least=1)
    spike_deviations: float = limited(6.0, above=0)
    averaging_steps: int = limited(100, least=2)
    warmup_steps: int = limited(100, least=2)
    nonfinite_steps: Limit = field(default_factory=Limit)
    skipped_steps: Limit = field(default_factory=Limit)
    loss_spikes: Limit = field(default_factory=Limit)
    gradient_spikes: Limit = field(default_factory=lambda: Limit(consecutive=None, in_window=None))

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first limit that the window has no room for."""
        for name, limit in vars(self).items():
            if isinstance(limit, Limit) and (limit.in_window or 0) > self.window_steps:
                raise ConfigError(
                    f"{field}.{name}.in_window is {limit.in_window}: it must be at most {field}.window_steps "
                    f"({self.window_steps}), or null"
                )
