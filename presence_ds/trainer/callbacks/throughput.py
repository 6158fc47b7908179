"""Tokens per second, seconds per step and peak memory."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any

from deepspeed.accelerator import get_accelerator

from presence_ds.trainer.callbacks.callback import Callback

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer

GIB = 2**30


class Throughput(Callback):
    """Clocks the optimizer steps alone: evaluation, checkpoints and the first step of a process are left out."""

    def __init__(self) -> None:
        self.steps = 0  # steps clocked, over all processes of this run
        self.seconds = 0.0
        self._logged = (0, 0.0)
        self._started: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.seconds = state["steps"], state["seconds"]
        self._logged = (self.steps, self.seconds)

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        if self._started is not None:
            self.steps += 1
            self.seconds += time.perf_counter() - self._started
        self._started = None

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        steps, seconds = self.steps - self._logged[0], self.seconds - self._logged[1]
        if steps:
            metrics["throughput(tokens/s)"] = steps * trainer.tokens_per_step / seconds
            metrics["step_time(s)"] = seconds / steps
        metrics["memory/peak(GiB)"] = peak_memory_gib()
        self._logged = (self.steps, self.seconds)

    def on_step_end(self, trainer: Trainer) -> None:
        self._started = time.perf_counter()

    def tokens_per_second(self, tokens_per_step: int) -> float | None:
        """Mean over every clocked step; None before the second step of a process."""
        return self.steps * tokens_per_step / self.seconds if self.steps else None


def peak_memory_gib() -> float:
    """Most memory of this rank so far: the accelerator's allocator where there is one, else the process's own."""
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    return float(accelerator.max_memory_allocated()) / GIB
