"""Tokens per second, FLOPs utilisation, time waited for data, hours so far and to the end, and peak memory."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any

from deepspeed.accelerator import get_accelerator

from presence_ds.trainer.building.device import device_name, known_peak_tflops
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.estimate.flops import count_flops, training_flops

if TYPE_CHECKING:
    from presence_ds.trainer.recipe.plan import Plan
    from presence_ds.trainer.recipe.recipe import Recipe
    from presence_ds.trainer.trainer import Metrics, Trainer

GIB = 2**30


TIMINGS = (  # every metric that depends on the time or the machine a step took, and not on the recipe alone
    "throughput(tokens/s)",
    "step_time(s)",
    "data_wait_share",
    "mfu",
    "scoring_share",
    "eta(s)",
    "hours",
    "memory/peak(GiB)",
)


class Throughput(Callback):
    """Clocks the optimizer steps alone: evaluation, checkpoints and the first step of a process are left out.

    Adds `TIMINGS` to the logged metrics, as means over the steps since the last ones: ``data_wait_share`` is the share
    of the step in which this rank waited for its next batch, ``mfu`` the model FLOPs utilisation
    (`presence_ds.trainer.estimate.flops`). ``eta(s)`` is what the steps that are left take at the pace of this process
    so far, and ``hours`` what those so far took in all starts of the run, both with evaluation and checkpoints; what
    was lost with a process after its last checkpoint is no part of it.

    With FLOPs counted, ``scoring_share`` is what part of all that is computed the scoring is, the same in every step.
    """

    def __init__(
        self,
        model_flops_per_token: float | None = None,
        peak_flops: float | None = None,
        scoring_share: float | None = None,
    ) -> None:
        """Without the model's FLOPs or the FLOP/s that all ranks together could do there is no ``mfu``."""
        self.steps = 0  # steps clocked, over all processes of this run
        self.seconds = 0.0
        self.tokens = 0  # of text in these steps
        self._flops = model_flops_per_token
        self._peak = peak_flops
        self._scoring_share = scoring_share
        self._waited = 0.0
        self._logged = (0, 0.0, 0, 0.0)
        self._started: float | None = None
        self._waited_before = 0.0
        self._first: tuple[int, float] | None = None  # the first step of this process, and when it ended
        self._began = time.perf_counter()
        self._before = 0.0  # seconds of earlier processes

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "seconds": self.seconds, "tokens": self.tokens, "elapsed": self._elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "tokens" in state:  # an earlier version's clock counted padding, and starts anew
            self.steps, self.seconds, self.tokens = state["steps"], state["seconds"], state["tokens"]
            self._before = state.get("elapsed", self.seconds)  # which earlier versions did not note
        self._logged = (self.steps, self.seconds, self.tokens, self._waited)

    @property
    def _elapsed(self) -> float:
        """Seconds of training of all starts, evaluation and checkpoints included, what a crash threw away not."""
        return self._before + time.perf_counter() - self._began

    def on_train_start(self, trainer: Trainer) -> None:
        self._began = time.perf_counter()

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        if self._started is not None:
            self.steps += 1
            self.seconds += time.perf_counter() - self._started
            self.tokens += trainer.step_tokens
            self._waited += trainer.waited - self._waited_before
        self._started = None

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        now = (self.steps, self.seconds, self.tokens, self._waited)
        steps, seconds, tokens, waited = (new - old for new, old in zip(now, self._logged, strict=True))
        if steps:
            per_second = tokens / seconds
            metrics["throughput(tokens/s)"] = per_second
            metrics["step_time(s)"] = seconds / steps
            metrics["data_wait_share"] = waited / seconds
            if self._flops is not None and self._peak is not None:
                metrics["mfu"] = per_second * self._flops / self._peak
        if self._scoring_share is not None:
            metrics["scoring_share"] = self._scoring_share
        if self._first is not None:
            step, ended = self._first
            pace = (time.perf_counter() - ended) / (trainer.step - step)
            metrics["eta(s)"] = pace * (trainer.total_steps - trainer.step)
        metrics["hours"] = self._elapsed / 3600.0
        metrics["memory/peak(GiB)"] = peak_memory_gib()
        self._logged = now

    def on_step_end(self, trainer: Trainer) -> None:
        self._started, self._waited_before = time.perf_counter(), trainer.waited
        if self._first is None:
            self._first = trainer.step, self._started

    @property
    def tokens_per_second(self) -> float | None:
        """Mean over every clocked step; None before the second step of a process."""
        return self.tokens / self.seconds if self.steps else None


def make_throughput(recipe: Recipe, plan: Plan, ranks: int) -> Throughput:
    """The clock, told what the model computes and what the devices of all ``ranks`` could."""
    tflops = recipe.logging.peak_tflops or known_peak_tflops(device_name(), plan.precision)
    if tflops is None:  # then the model's need not be counted
        return Throughput()
    peak = tflops * 1e12 * ranks
    if not recipe.presence.computes_gradients:
        return Throughput(training_flops(plan.model_config, recipe.model, plan.lengths), peak)
    samples = recipe.training.micro_batch_size
    flops = count_flops(plan.model_config, recipe.model, recipe.presence, plan.lengths, samples)
    return Throughput(flops.training, peak, flops.scoring_share)


def peak_memory_gib() -> float:
    """Most memory of this rank so far: the accelerator's allocator where there is one, else the process's own."""
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    return float(accelerator.max_memory_allocated()) / GIB
