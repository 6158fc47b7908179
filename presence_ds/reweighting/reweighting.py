"""From the scores of an optimizer step to one softmax over all its samples, on every rank and accumulation step."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.errors import NonFiniteError
from presence_ds.reweighting.moments import Moments, RunningMoments
from presence_ds.reweighting.schedule import TemperatureSchedule
from presence_ds.reweighting.softmax import softmax_terms
from presence_ds.reweighting.statistics import Samples, describe


@dataclass(frozen=True)
class StepWeights:
    """Result of a finished optimizer step.

    Attributes:
        local: [G·b] float32 on the host, final weights of this rank's samples in the order they were seen; over all
            ranks they sum to 1.
        mean_term: Z/N, mean of the unnormalised weights u over all N samples of the step.
        statistics: what `describe` gives, with ``step``, ``tau`` and ``stage``.
    """

    local: Tensor
    mean_term: float
    statistics: dict[str, Any]


class Reweighting:
    """Turns scores into weights, micro-step by micro-step.

    Every rank gathers the same scores and computes on them alike, so weights and statistics agree on all ranks to
    the bit. There is one collective per optimizer step (and one more in the first, with running statistics).
    """

    def __init__(
        self, schedule: TemperatureSchedule, *, uniform: bool, running: bool, group: dist.ProcessGroup | None
    ) -> None:
        """Weigh by ``schedule``, or alike if ``uniform``; ``running`` normalises with earlier steps' moments.

        Without ``running`` a step must have a single micro-step. ``group`` is the data-parallel group.
        """
        self._schedule = schedule
        self._uniform = uniform
        self._running = RunningMoments() if running else None
        self._group = group
        self._normalizer: Moments | None = None  # of the step in progress
        self._rows: list[Tensor] = []  # [b, 3] of every micro-step so far: score, loss, source

    def add_micro_step(
        self, scores: Tensor, losses: Tensor, sources: Tensor, *, step: int, last: bool
    ) -> tuple[Tensor, StepWeights | None]:
        """Take in a micro-batch and weigh it.

        Args:
            scores: [b] float32 raw scores.
            losses: [b] float32.
            sources: [b] int64, below 2²⁴.
            step: optimizer step, counted from 1.
            last: whether this is the step's last micro-step.

        Returns:
            The micro-batch's unnormalised weights u ([b] float64 on the host, 0 for samples that are not finite),
            and the step's result if this was the last micro-step.

        Raises:
            NonFiniteError: on every rank alike, if no sample of the step is finite.
        """
        self._rows.append(torch.stack([scores.float(), losses.float(), sources.float()], dim=1))
        tau = 0.0 if self._uniform else self._schedule.tau(step)
        samples: Samples | None = None
        if self._normalizer is None and self._running is not None:
            self._normalizer = self._running.current
        if self._normalizer is None:  # batch statistics, or no step has finished yet
            samples = self._gather()
            if samples.finite.any():
                self._normalizer = Moments.of(samples.scores[samples.finite])
        local = _samples(self._rows[-1].cpu())
        terms = softmax_terms(local.scores, local.finite, self._normalizer, tau)
        if not last:
            return terms, None

        samples = samples or self._gather()
        if self._normalizer is None or not samples.finite.any():
            raise NonFiniteError(
                f"optimizer step {step}: none of the {len(samples.finite)} samples has a finite loss and "
                f"self-influence; nothing was updated (look at the data, the learning rate and the precision)"
            )
        every_term = softmax_terms(samples.scores, samples.finite, self._normalizer, tau)
        total = every_term.sum()
        statistics: dict[str, Any] = {"step": step, "tau": tau, "stage": self._schedule.stage(step)}
        statistics |= describe(samples, every_term / total, self._normalizer)
        if self._running is not None:
            self._running.update(Moments(statistics["si_mean"], statistics["si_variance"]))
        seen = _samples(torch.cat(self._rows).cpu())
        weights = softmax_terms(seen.scores, seen.finite, self._normalizer, tau) / total
        self._rows, self._normalizer = [], None
        return terms, StepWeights(weights.float(), (total / len(every_term)).item(), statistics)

    def state_dict(self) -> dict[str, Any]:
        """State to keep in a checkpoint between optimizer steps."""
        return {} if self._running is None else {"running": self._running.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; a step in progress is forgotten."""
        self._rows, self._normalizer = [], None
        if self._running is not None and "running" in state:
            self._running.load_state_dict(state["running"])

    def _gather(self) -> Samples:
        """The rows so far of every rank, ordered by rank, then as seen; on the host, which synchronises once."""
        local = torch.cat(self._rows)
        ranks = dist.get_world_size(self._group)
        every = local.new_empty(ranks * local.shape[0], local.shape[1])
        dist.all_gather(list(every.chunk(ranks)), local, group=self._group)
        return _samples(every.cpu())


def _samples(rows: Tensor) -> Samples:
    scores, losses, sources = rows.unbind(1)
    return Samples(scores, losses, sources.long(), rows.isfinite().all(1))
