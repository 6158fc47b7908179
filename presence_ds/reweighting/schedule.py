"""The temperature τ of the weights over training (equation 10 of the paper)."""

from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Any, Literal

from presence_ds.errors import ConfigError
from presence_ds.sections import limited, stated

MAX_ABS_TAU = 100.0
DEFAULT_SWITCH_FRACTION = {"two_stage": 0.1, "auto": 0.5}
SMALLEST_WINDOW = 10
SWITCH = {"tau_inverse", "switch_step", "switch_fraction"}
USED = {  # of a schedule, by each kind, beside kind, tau_direct and training_steps
    "two_stage": SWITCH,
    "constant": set(),
    "linear": {"tau_inverse"},
    "cosine": {"tau_inverse"},
    "auto": SWITCH | {"slowdown_share", "slowdown_window", "earliest_step"},
}
DEFAULT_WINDOW_FRACTION = 0.02
CONFIDENCE = 3.0  # standard errors
SUMS = ("ages", "squared_ages", "weights", "squared_weights", "losses", "aged_losses", "squared_losses")


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
    tau_direct: float = limited(1.0, least=-MAX_ABS_TAU, most=MAX_ABS_TAU)
    tau_inverse: float = limited(-1.0, least=-MAX_ABS_TAU, most=MAX_ABS_TAU)
    switch_step: int | None = limited(None, least=0)
    switch_fraction: float | None = limited(None, least=0, most=1)
    slowdown_share: float = limited(0.1, above=0, below=1)
    slowdown_window: int | None = limited(None, least=SMALLEST_WINDOW)
    earliest_step: int = limited(1, least=1)
    training_steps: int | None = limited(None, least=1)

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that does not go with the others."""
        for name, value in stated(self).items():
            users = [kind for kind in USED if name in USED[kind]]
            if users and self.kind not in users:
                raise ConfigError(
                    f"{field}.{name} is {value} with kind {self.kind}, which has no use for it: leave it out, or use "
                    f"kind {' or '.join(users)}"
                )
        if self.switch_step is not None and self.switch_fraction is not None:
            raise ConfigError(f"{field}.switch_step and {field}.switch_fraction are both set: give one of them")
        given = self.kind == "constant" or (self.kind == "two_stage" and self.switch_step is not None)
        if self.training_steps is None and not given:
            instead = f"; set it, or set {field}.switch_step instead" if self.kind == "two_stage" else ""
            raise ConfigError(
                f"{field}.training_steps is not set: kind {self.kind} needs the number of optimizer steps of the whole "
                f"training{instead}"
            )
        if self.switch_step is not None and self.training_steps is not None and self.switch_step > self.training_steps:
            raise ConfigError(
                f"{field}.switch_step is {self.switch_step}, beyond the end of training: it must be at most "
                f"{self.training_steps}, the number of training steps"
            )
        if self.kind == "auto" and self.earliest_step > max(self.given_switch, 1):
            raise ConfigError(
                f"{field}.earliest_step is {self.earliest_step}: it must not be after the latest switch step, "
                f"{self.given_switch}"
            )

    @property
    def given_switch(self) -> int:
        """Last step of the first stage, with auto the latest that it may be; for these kinds, once validated."""
        if self.switch_step is not None:
            return self.switch_step
        assert self.training_steps is not None
        fraction = DEFAULT_SWITCH_FRACTION[self.kind] if self.switch_fraction is None else self.switch_fraction
        return round(fraction * self.training_steps)


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
            self.switch_step = config.given_switch
        elif config.kind in ("linear", "cosine"):
            self.switch_step = (total + 1) // 2
        elif config.kind == "auto":
            self._latest = config.given_switch
            window = config.slowdown_window or max(SMALLEST_WINDOW, round(DEFAULT_WINDOW_FRACTION * total))
            self._slowdown = Slowdown(window, config.slowdown_share)

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


class Slowdown:
    """Schedule ``auto``: watches how fast the loss falls, and says when that has become slow.

    The rate is the slope of a straight line through the losses so far by weighted least squares, with weights
    exp(−age / window); it comes with its standard error. Both bounds below are cautious by three standard errors, so
    neither noise, nor a single bad step, nor a flat start (warm-up) passes for a slowdown:
    - the fastest fall is the largest rate − 3 errors seen, from step 2·window on (before that the line has no length);
    - the fall is slow once rate + 3 errors is below ``share`` of it.

    Scale does not matter: a factor in all losses, or an offset, leaves the answer as it is. Plain arithmetic in a fixed
    order on a few sums, which are all the state.
    """

    def __init__(self, window: int, share: float) -> None:
        """``window`` in optimizer steps, above 1; ``share`` between 0 and 1."""
        self._decay = 1.0 - 1.0 / window
        self._warm_up = 2 * window
        self._share = share
        self._steps = 0
        self._first = 0.0  # subtracted from every loss: a constant one then has a rate of 0, not one of rounding
        self._fastest = 0.0
        self._sums = dict.fromkeys(SUMS, 0.0)

    def observe(self, loss: float) -> bool:
        """Take in the next step's mean loss; whether the fall is slow by now."""
        if self._steps == 0:
            self._first = loss
        self._steps += 1
        self._take_in(loss - self._first)
        if self._steps < self._warm_up:
            return False
        rate, error = self._line()
        self._fastest = max(self._fastest, rate - CONFIDENCE * error)
        return self._fastest > 0.0 and rate + CONFIDENCE * error < self._share * self._fastest

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        return {"steps": self._steps, "first": self._first, "fastest": self._fastest, "sums": dict(self._sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps, self._first, self._fastest = state["steps"], state["first"], state["fastest"]
        self._sums = dict(state["sums"])

    def _take_in(self, loss: float) -> None:
        """Every earlier step has aged by one; ``loss`` is of age 0."""
        sums, decay = self._sums, self._decay
        sums["squared_ages"] = decay * (sums["squared_ages"] + 2 * sums["ages"] + sums["weights"])
        sums["ages"] = decay * (sums["ages"] + sums["weights"])
        sums["aged_losses"] = decay * (sums["aged_losses"] + sums["losses"])
        sums["weights"] = decay * sums["weights"] + 1.0
        sums["squared_weights"] = decay**2 * sums["squared_weights"] + 1.0
        sums["losses"] = decay * sums["losses"] + loss
        sums["squared_losses"] = decay * sums["squared_losses"] + loss**2

    def _line(self) -> tuple[float, float]:
        """Fall per step and its standard error, by weighted least squares."""
        sums, weight = self._sums, self._sums["weights"]
        age, mean = sums["ages"] / weight, sums["losses"] / weight
        age_variance = sums["squared_ages"] / weight - age**2
        covariance = sums["aged_losses"] / weight - age * mean
        residual = max(sums["squared_losses"] / weight - mean**2 - covariance**2 / age_variance, 0.0)
        steps = weight**2 / sums["squared_weights"]  # effective number of those that the line rests on
        return covariance / age_variance, sqrt(residual / age_variance / (steps - 2.0))
