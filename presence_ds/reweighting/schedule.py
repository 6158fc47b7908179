"""The temperature τ of the weights over training (equation 10 of the paper)."""

from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal

from presence_ds.errors import ConfigError
from presence_ds.reweighting.slowdown import Slowdown
from presence_ds.reweighting.stated import stated

MAX_ABS_TAU = 100.0
DEFAULT_SWITCH_FRACTION = {"two_stage": 0.1, "auto": 0.5}
DEFAULT_WINDOW_FRACTION = 0.02
SMALLEST_WINDOW = 10
SWITCH = {"tau_inverse", "switch_step", "switch_fraction"}
USED = {  # by each kind, beside kind, tau_direct and training_steps
    "two_stage": SWITCH,
    "constant": set(),
    "linear": {"tau_inverse"},
    "cosine": {"tau_inverse"},
    "auto": SWITCH | {"slowdown_share", "slowdown_window", "earliest_step"},
}


@dataclass
class ScheduleConfig:
    """When tau is positive ("direct": high scores count more) and when negative ("inverse": they count less).

    Args:
        kind: two_stage uses tau_direct up to and including the switch step and tau_inverse after it; constant uses
            tau_direct throughout; linear and cosine go from tau_direct at the first step to tau_inverse at the last, at
            an even pace or slowly at both ends; auto is two_stage with a switch step that it finds itself: the step at
            which the mean loss has become slow to fall.
        tau_direct: Signed temperature of the first stage (dimensionless; the paper: 1).
        tau_inverse: Signed temperature of the second stage (dimensionless; the paper: -1). Unused by constant.
        switch_step: Last optimizer step of the first stage, steps counted from 1 (the paper: 100000); with auto, the
            latest that it may be. Unused by constant, linear and cosine. Give this or switch_fraction, not both.
        switch_fraction: The same as a share of training_steps, between 0 and 1 (the paper: 0.1). Used when switch_step
            is not set; if neither is set it is 0.1, with auto 0.5.
        slowdown_share: Auto only: the loss is slow to fall when its fall per step is, beyond doubt, below this share of
            the fastest one seen; between 0 and 1.
        slowdown_window: Auto only: memory in steps of the straight line that measures the fall, which also has to be
            filled twice before the switch. Default: 2 % of training_steps, at least 10.
        earliest_step: Auto only: first optimizer step after which it may switch; the end of a long warm-up, say.
        training_steps: Number of optimizer steps of the whole training. Needed with switch_fraction and by linear,
            cosine and auto; the trainer fills it in.
    """

    kind: Literal["two_stage", "constant", "linear", "cosine", "auto"] = "two_stage"
    tau_direct: float = 1.0
    tau_inverse: float = -1.0
    switch_step: int | None = None
    switch_fraction: float | None = None
    slowdown_share: float = 0.1
    slowdown_window: int | None = None
    earliest_step: int = 1
    training_steps: int | None = None

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used."""
        for name in ("tau_direct", "tau_inverse"):
            if not abs(getattr(self, name)) <= MAX_ABS_TAU:
                raise ConfigError(
                    f"{field}.{name} is {getattr(self, name)}: it must be a finite number between "
                    f"-{MAX_ABS_TAU:g} and {MAX_ABS_TAU:g}"
                )
        for name, value in stated(self).items():
            users = [kind for kind in USED if name in USED[kind]]
            if users and self.kind not in users:
                raise ConfigError(
                    f"{field}.{name} is {value} with kind {self.kind}, which has no use for it: leave it out, or use "
                    f"kind {' or '.join(users)}"
                )
        if self.training_steps is not None and self.training_steps < 1:
            raise ConfigError(f"{field}.training_steps is {self.training_steps}: it must be at least 1")
        if self.kind in ("linear", "cosine", "auto") and self.training_steps is None:
            raise ConfigError(
                f"{field}.training_steps is not set: kind {self.kind} needs the number of optimizer steps of the whole "
                f"training"
            )
        if self.kind in ("two_stage", "auto"):
            self._validate_switch(field)
        if self.kind == "auto":
            self._validate_auto(field)

    def _validate_switch(self, field: str) -> None:
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

    def _validate_auto(self, field: str) -> None:
        if not 0.0 < self.slowdown_share < 1.0:
            raise ConfigError(
                f"{field}.slowdown_share is {self.slowdown_share}: it must be between 0 and 1, both excluded"
            )
        if self.slowdown_window is not None and self.slowdown_window < SMALLEST_WINDOW:
            raise ConfigError(
                f"{field}.slowdown_window is {self.slowdown_window}: it must be at least {SMALLEST_WINDOW} steps"
            )
        if not 1 <= self.earliest_step <= max(_given_switch(self), 1):
            raise ConfigError(
                f"{field}.earliest_step is {self.earliest_step}: it must be at least 1 and not after the latest switch "
                f"step, {_given_switch(self)}"
            )


class TemperatureSchedule:
    """τ as a function of the optimizer step, from a validated `ScheduleConfig`.

    Only kind auto has a state: it watches the loss (`observe`) until it has decided.

    Attributes:
        switch_step: last step of the first stage: for linear and cosine the last one with τ no nearer to tau_inverse
            than to tau_direct; None with a constant τ, and with auto until it is decided.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self._config = config
        self.switch_step: int | None = None
        self._slowdown: Slowdown | None = None
        self._latest = 0  # step after which auto switches in any case
        total = config.training_steps or 0
        if config.kind == "two_stage":
            self.switch_step = _given_switch(config)
        elif config.kind in ("linear", "cosine"):
            self.switch_step = (total + 1) // 2
        elif config.kind == "auto":
            self._latest = _given_switch(config)
            window = config.slowdown_window or max(SMALLEST_WINDOW, round(DEFAULT_WINDOW_FRACTION * total))
            self._slowdown = Slowdown(window, config.slowdown_share)

    @property
    def finds_switch(self) -> bool:
        """Whether the switch step is not given but found."""
        return self._slowdown is not None

    def tau(self, step: int) -> float:
        """τ of optimizer step ``step``, counted from 1.

        Two stages, given or found: τ_direct while step ≤ I, τ_inverse after (equation 10). Linear:
        τ_direct + (τ_inverse − τ_direct)·p with p = (step − 1) / (training_steps − 1); cosine: (1 − cos πp) / 2 for p.
        """
        config = self._config
        if config.kind not in ("linear", "cosine"):
            return config.tau_inverse if self.stage(step) == "inverse" else config.tau_direct
        assert config.training_steps is not None  # ScheduleConfig.validate
        done = min((step - 1) / max(config.training_steps - 1, 1), 1.0)
        share = done if config.kind == "linear" else (1.0 - cos(pi * done)) / 2.0
        return (1.0 - share) * config.tau_direct + share * config.tau_inverse

    def stage(self, step: int) -> str:
        """``constant``, ``direct`` (first stage) or ``inverse`` (second stage), for logs."""
        if self._config.kind == "constant":
            return "constant"
        switch = self._latest if self.switch_step is None else self.switch_step
        return "direct" if step <= switch else "inverse"

    def observe(self, step: int, loss: float) -> None:
        """Take in the mean loss of a finished optimizer step, over all ranks; only auto looks at it.

        Every step up to the decision is to be shown, in order. With the same losses every rank decides alike.
        """
        if self._slowdown is None or self.switch_step is not None:
            return
        slow = self._slowdown.observe(loss)
        if step >= self._latest or (slow and step >= self._config.earliest_step):
            self.switch_step = min(step, self._latest)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint; empty for every kind but auto."""
        if self._slowdown is None:
            return {}
        return {"switch_step": self.switch_step, "slowdown": self._slowdown.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; auto begins to watch anew after a checkpoint of another kind."""
        if self._slowdown is not None and state:
            self.switch_step = state["switch_step"]
            self._slowdown.load_state_dict(state["slowdown"])


def _given_switch(config: ScheduleConfig) -> int:
    if config.switch_step is not None:
        return config.switch_step
    assert config.training_steps is not None  # ScheduleConfig.validate
    fraction = DEFAULT_SWITCH_FRACTION[config.kind] if config.switch_fraction is None else config.switch_fraction
    return round(fraction * config.training_steps)
