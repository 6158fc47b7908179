"""Steps that went wrong: counted, logged, and too many of them end the run.

Counts in every line of metrics.jsonl, since the start of the run: ``nonfinite_steps`` (a sample had no finite loss or
self-influence), ``skipped_steps`` (DeepSpeed did not update), ``loss_spikes`` and ``gradient_spikes``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.errors import AnomalyError
from presence_ds.trainer.callbacks.anomalies_config import AnomaliesConfig, Limit
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.spikes import Spikes
from presence_ds.trainer.transfer.host_copy import HostCopy

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer

KINDS = {  # name in metrics: what happened, and what to do when it happens too often
    "nonfinite_steps": (
        "samples had no finite loss or self-influence and were left out",
        "look at those samples in scores/, and at the precision",
    ),
    "skipped_steps": (
        "the update was skipped, a gradient was not finite or no sample had a target",
        "lower optimizer.lr or training.gradient_clipping, use bf16, or look at samples_without_targets",
    ),
    "loss_spikes": (
        "the mean loss rose far above its running mean",
        "go on from a checkpoint before with a lower optimizer.lr, or other data",
    ),
    "gradient_spikes": (
        "the gradient norm rose far above its running mean",
        "lower optimizer.lr or training.gradient_clipping",
    ),
}


class Anomalies(Callback):
    """Looks at the figures of every step, which are the same on every rank, so that all ranks decide alike.

    The gradient norm is on the device: that of a step is looked at with the next one, so that no step waits for it,
    unless the step is logged or saved, which waits anyway.

    Attributes:
        counts: steps with each kind of anomaly since the start of the run.
        spiking: whether the mean loss of the last step was a spike, so that its state may be worth nothing.
    """

    def __init__(self, config: AnomaliesConfig, checkpoints: Path) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self.spiking = False
        self._config = config
        self._checkpoints = checkpoints
        self._streaks = dict.fromkeys(KINDS, 0)
        self._recent: dict[str, list[int]] = {name: [] for name in KINDS}  # steps within the window
        self._updated = False  # whether a step of the run was ever applied
        options = (config.spike_deviations, config.averaging_steps, config.warmup_steps)
        self._loss, self._gradient = Spikes(*options), Spikes(*options)
        self._unseen: tuple[int, HostCopy | None] | None = None  # the last step and, if it was applied, its norm
        self._over: str | None = None  # why the run ends

    def state_dict(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "streaks": self._streaks,
            "recent": self._recent,
            "updated": self._updated,
            "loss": self._loss.state_dict(),
            "gradient": self._gradient.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts, self._streaks, self._recent = state["counts"], state["streaks"], state["recent"]
        self._updated = state["updated"]
        self._loss.load_state_dict(state["loss"])
        self._gradient.load_state_dict(state["gradient"])

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        self._look_at_gradient(trainer)
        engine = trainer.engine
        applied = engine.was_step_applied()
        finding_scale = engine.fp16_enabled() and engine.dynamic_loss_scale() and not self._updated
        self.spiking = self._loss.is_spike(metrics.get("loss"))
        found = {
            "nonfinite_steps": applied and metrics.get("nonfinite_samples", 0) > 0,
            "skipped_steps": not applied,
            "loss_spikes": self.spiking,
        }
        self._updated |= applied
        for name, happened in found.items():
            self.counts[name] += happened
            metrics[name] = self.counts[name]
            if not (name == "skipped_steps" and finding_scale):
                self._note(trainer, trainer.step, name, happened)
        self._unseen = trainer.step, trainer.gradient_norm if applied else None

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        self._look_at_gradient(trainer)
        metrics["gradient_spikes"] = self.counts["gradient_spikes"]

    def on_step_end(self, trainer: Trainer) -> None:
        if self._over is not None:
            raise AnomalyError(f"{self._over}; no checkpoint was written of it, the newest is in {self._checkpoints}")

    def before_checkpoint(self, trainer: Trainer) -> None:
        """Look at all that there is of the last step.

        Raises:
            AnomalyError: on every rank, it is not to be saved.
        """
        self._look_at_gradient(trainer)
        self.on_step_end(trainer)

    def _look_at_gradient(self, trainer: Trainer) -> None:
        if self._unseen is None:
            return
        (step, copy), self._unseen = self._unseen, None
        norm = None if copy is None else float(copy.values)
        if norm is not None and not 0.0 <= norm < math.inf:  # DeepSpeed shows one that is not finite as -1
            raise AnomalyError(
                f"stopped after step {trainer.step}: in step {step} the model was updated with a gradient that is not "
                f"finite; lower optimizer.lr, look at the data and the precision; the newest checkpoint is in "
                f"{self._checkpoints}"
            )
        spiking = self._gradient.is_spike(math.log(norm) if norm else None)
        self.counts["gradient_spikes"] += spiking
        self._note(trainer, step, "gradient_spikes", spiking)

    def _note(self, trainer: Trainer, step: int, name: str, happened: bool) -> None:
        limit: Limit = getattr(self._config, name)
        self._streaks[name] = self._streaks[name] + 1 if happened else 0
        recent = self._recent[name] = [at for at in self._recent[name] if at > step - self._config.window_steps]
        if not happened:
            return
        recent.append(step)
        what, remedy = KINDS[name]
        count = self.counts[name]
        if count == 10 ** (len(str(count)) - 1):  # the first, the 10th, the 100th, ...
            trainer.ranks.warn(f"step {step}: {what} (now {count} {name}; metrics.jsonl counts them)")
        for kind, number in (("consecutive", self._streaks[name]), ("in_window", len(recent))):
            allowed = getattr(limit, kind)
            if self._over is None and allowed is not None and number >= allowed:
                among = (
                    "consecutive steps" if kind == "consecutive" else f"of the last {self._config.window_steps} steps"
                )
                self._over = (
                    f"stopped after step {trainer.step}: {what}, in {number} {among}, the limit "
                    f"anomalies.{name}.{kind}: {remedy}, or raise the limit"
                )
