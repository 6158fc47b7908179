"""The temperature τ of the weights over training (equation 10 of the paper)."""

from dataclasses import dataclass
from typing import Literal

from presence_ds.errors import ConfigError


@dataclass
class ScheduleConfig:
    """When τ is positive ("direct": novel samples count more) and when negative ("inverse": noisy samples count less).

    Args:
        kind: two_stage uses tau_direct up to and including the switch step and tau_inverse after it; constant uses
            tau_direct throughout.
        tau_direct: Signed temperature of the first stage (dimensionless; the paper: 1).
        tau_inverse: Signed temperature of the second stage (dimensionless; the paper: -1). Unused by constant.
        switch_step: Last optimizer step of the first stage, steps counted from 1 (the paper: 100000). Give this or
            switch_fraction, not both.
        switch_fraction: The same as a share of training_steps, between 0 and 1 (the paper: 0.1). Used when switch_step
            is not set; if neither is set it is 0.1.
        training_steps: Number of optimizer steps of the whole training. Needed with switch_fraction; the trainer
            fills it in.
    """

    kind: Literal["two_stage", "constant"] = "two_stage"
    tau_direct: float = 1.0
    tau_inverse: float = -1.0
    switch_step: int | None = None
    switch_fraction: float | None = None
    training_steps: int | None = None

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used."""
        for name in ("tau_direct", "tau_inverse"):
            if not abs(getattr(self, name)) <= MAX_ABS_TAU:
                raise ConfigError(
                    f"{field}.{name} is {getattr(self, name)}: it must be a finite number between "
                    f"-{MAX_ABS_TAU:g} and {MAX_ABS_TAU:g}"
                )
        if self.training_steps is not None and self.training_steps < 1:
            raise ConfigError(f"{field}.training_steps is {self.training_steps}: it must be at least 1")
        if self.kind == "constant":
            return
        if self.switch_step is not None and self.switch_fraction is not None:
            raise ConfigError(f"{field}.switch_step and {field}.switch_fraction are both set: give one of them")
        if self.switch_step is not None:
            if self.switch_step < 0:
                raise ConfigError(f"{field}.switch_step is {self.switch_step}: it must be 0 or more")
            if self.training_steps is not None and self.switch_step > self.training_steps:
                raise ConfigError(
                    f"{field}.switch_step is {self.switch_step}, beyond the end of training: it must be at most "
                    f"{self.training_steps}, the number of training steps"
                )
            return
        if self.switch_fraction is not None and not 0.0 <= self.switch_fraction <= 1.0:
            raise ConfigError(f"{field}.switch_fraction is {self.switch_fraction}: it must be between 0 and 1")
        if self.training_steps is None:
            raise ConfigError(
                f"{field}.training_steps is not set: switch_fraction needs the number of optimizer steps of the "
                f"whole training; set it, or set {field}.switch_step instead"
            )


MAX_ABS_TAU = 100.0


class TemperatureSchedule:
    """τ as a function of the optimizer step, from a validated `ScheduleConfig`."""

    def __init__(self, config: ScheduleConfig) -> None:
        self._config = config
        self.switch_step: int | None = None  # last step of the first stage; None with a constant τ
        if config.kind == "two_stage":
            if config.switch_step is not None:
                self.switch_step = config.switch_step
            else:
                assert config.training_steps is not None  # ScheduleConfig.validate
                fraction = DEFAULT_SWITCH_FRACTION if config.switch_fraction is None else config.switch_fraction
                self.switch_step = round(fraction * config.training_steps)

    def tau(self, step: int) -> float:
        """τ of optimizer step ``step``, counted from 1: τ_direct while step ≤ I, τ_inverse after (equation 10)."""
        if self.switch_step is None or step <= self.switch_step:
            return self._config.tau_direct
        return self._config.tau_inverse

    def stage(self, step: int) -> str:
        """``constant``, ``direct`` (first stage) or ``inverse`` (second stage), for logs."""
        if self.switch_step is None:
            return "constant"
        return "direct" if step <= self.switch_step else "inverse"


DEFAULT_SWITCH_FRACTION = 0.1
