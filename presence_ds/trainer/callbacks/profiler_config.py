"""The ``profiler`` section of a recipe."""

from dataclasses import dataclass, field

from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass
class ProfilerConfig:
    """What the operators of a few steps take, as a trace for Perfetto and a table, in profile/ of the run directory.

    Args:
        enabled: Whether steps are profiled. They are slower, and what is trained is the same.
        ranks: Which ranks are looked at.
        first_step: First profiled step, counted in each start of the run anew; the step before it warms the profiler
            up.
        steps: How many are profiled, one after the other.
        memory: On CUDA, write a snapshot of allocations and releases in these steps too.
    """

    enabled: bool = False
    ranks: list[int] = field(default_factory=lambda: [0])
    first_step: int = limited(10, least=2)
    steps: int = limited(3, least=1)
    memory: bool = True

    @property
    def last_step(self) -> int:
        """The last profiled step of a start."""
        return self.first_step + self.steps - 1

    def validate(self, field: str, training_steps: int) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if not self.enabled:
            return
        if not self.ranks or min(self.ranks) < 0 or len(set(self.ranks)) < len(self.ranks):
            raise ConfigError(f"{field}.ranks is {self.ranks}: it must be one rank or several, counted from 0")
        if self.last_step > training_steps:
            raise ConfigError(
                f"{field}.first_step is {self.first_step} with {field}.steps {self.steps}, up to step "
                f"{self.last_step}: that must be at most training.steps ({training_steps})"
            )

    def check_ranks(self, world_size: int, field: str = "profiler") -> None:
        """Raise `ConfigError` if there is no such rank."""
        if self.enabled and max(self.ranks) >= world_size:
            raise ConfigError(f"{field}.ranks is {self.ranks}: the last of {world_size} ranks is {world_size - 1}")
