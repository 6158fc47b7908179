"""The ``stop`` section of a recipe."""

import re
import signal
from dataclasses import dataclass, field

from presence_ds.errors import ConfigError
from presence_ds.sections import limited

NO_STOP = {"SIGKILL", "SIGSTOP", "SIGALRM", "SIGCHLD", "SIGCONT"}  # cannot be caught, or have another use here


@dataclass
class StopConfig:
    """Ending a run early: after the current step or the next, on every rank alike, with a checkpoint and status 75.

    Args:
        signals: Signals that stop the run, whichever rank or launcher gets them.
        stop_file: The run stops when this file exists, until it is deleted; relative to run_dir. null: none.
        wall_clock: The run stops when its process is so old: seconds, or "[DAYS-]HH:MM:SS". Leave time for two steps
            and a checkpoint before whatever limit it serves. null: no limit.
        hang_seconds: A run in which a rank makes no progress for so long, be it that it waits for another, writes the
            stacks of all ranks to run_dir/stacks and ends at once with status 77 and no checkpoint. A micro-step must
            take less, the first step and a checkpoint less than six times as long. null: not watched.
    """

    signals: list[str] = field(default_factory=lambda: ["SIGTERM", "SIGUSR1", "SIGUSR2"])
    stop_file: str | None = "stop"
    wall_clock: float | str | None = None
    hang_seconds: float | None = limited(600.0, least=1)

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        for name in self.signals:
            if name not in signal.Signals.__members__ or name in NO_STOP:
                raise ConfigError(f"{field}.signals has {name}: it must be names such as SIGTERM, SIGUSR1 and SIGINT")
        seconds = self.wall_clock_seconds
        if self.wall_clock is not None and (seconds is None or not 0.0 < seconds < float("inf")):
            raise ConfigError(
                f'{field}.wall_clock is {self.wall_clock}: it must be seconds, "HH:MM:SS" or "DAYS-HH:MM:SS", above 0'
            )

    @property
    def signal_numbers(self) -> list[int]:
        """The signals by number."""
        return [signal.Signals[name].value for name in dict.fromkeys(self.signals)]

    @property
    def wall_clock_seconds(self) -> float | None:
        """``wall_clock`` in seconds; None without a limit, or where `validate` refuses its form."""
        if not isinstance(self.wall_clock, str):
            return self.wall_clock
        match = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", self.wall_clock)
        if match is None:
            return None
        days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
