"""From the scores of an optimizer step to one set of weights for all its samples, on every rank and micro-step."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.errors import NonFiniteError
from presence_ds.reweighting.alignment import leave_one_out
from presence_ds.reweighting.building import build_weight_function
from presence_ds.reweighting.config import ReweightingConfig
from presence_ds.reweighting.gram import Gradients
from presence_ds.reweighting.messages import Messages
from presence_ds.reweighting.normalizers import Running
from presence_ds.reweighting.placebo import permuted, permuted_by_micro_batch
from presence_ds.reweighting.samples import COLUMNS, MicroBatch, Samples
from presence_ds.reweighting.schedule import TemperatureSchedule
from presence_ds.reweighting.signals import signal_values
from presence_ds.reweighting.sizes import Sizes
from presence_ds.reweighting.statistics import count, describe
from presence_ds.reweighting.step_weights import StepWeights
from presence_ds.reweighting.value.worth import Worth
from presence_ds.reweighting.weight_functions import tau_with_floor

LARGEST_TERM = 256.0  # of u in fp16: at most 8 halvings of the loss scale


class Reweighting:
    """Turns scores into weights, micro-batch by micro-batch.

    Every rank gathers the same rows and computes on them alike, so weights and statistics agree on all ranks to
    the bit. There is one collective per optimizer step (and one more in the first, with running statistics), and one
    before it for alignments; signal leverage and near-duplicates have their own (`presence_ds.reweighting.gram`).

    A device waits for the weights of a step, and not for what is told and learned of it: `finish` leaves that to
    `settle`, which is to be called while the device has work, and is where anything needs it. No collective is in it.

    Attributes:
        targets: of the step finished last, over all ranks.
        messages: what ranks tell each other along with the rows.
    """

    def __init__(
        self,
        config: ReweightingConfig,
        *,
        running: bool,
        group: dist.ProcessGroup | None,
        bounded: bool = False,
        unequal: bool = False,
    ) -> None:
        """``config`` is validated; ``group`` is the data-parallel group.

        With ``running`` a step's samples are weighed by the figures of earlier steps (`check_running`), without it by
        the step's own, once all are known. With ``bounded`` too, u is in units of the largest that the scores of the
        step before would have, and limited to `LARGEST_TERM`, since gradients in fp16 are to hold it. With ``unequal``
        micro-batches may be of different sizes, which costs a small collective more.
        """
        self._config = config
        self._function = build_weight_function(config)
        self._schedule = TemperatureSchedule(config.schedule) if config.has_temperature else None
        self._complete = not running
        self._running: Running | None = self._function.running() if running else None
        self._group = group
        self._unequal = unequal
        self._bounded = bounded and running and not self._function.is_bounded
        self._worth = Worth(config) if config.aligns else None
        self._range: Tensor | None = None  # [2] least and greatest value of the last finished step, if bounded
        self.targets = 0
        self.messages = Messages()
        self._total_sketch: Tensor | None = None  # of the step being finished
        self._later: Callable[[], Any] | None = None  # what is left of the last finished step
        self._figures: Any = None  # that the step in progress is weighed by
        self._extremes: Tensor | None = None  # whose terms bound those of the step in progress
        self._rows: list[Tensor] = []  # of every micro-batch so far
        self._features: list[Tensor] = []
        self._sketches: list[Tensor] = []

    @property
    def worth(self) -> Worth | None:
        """What weights and sources have been worth lately; None where nothing is aligned."""
        self.settle()
        return self._worth

    @property
    def collected(self) -> int:
        """Samples of this rank in the step in progress."""
        return sum(map(len, self._rows))

    def collect(self, batch: MicroBatch) -> Tensor:
        """Take in the next micro-batch of the step in progress; all are of one size, unless they are unequal.

        Returns:
            [b] bool on the device: whether everything known of the sample is finite.
        """
        rows = batch.rows()
        self._rows.append(rows)
        if batch.features is not None:
            self._features.append(batch.features.float())
        if batch.sketches is not None and self._config.aligns:
            self._sketches.append(batch.sketches)
        return rows.isfinite().all(1)

    def provisional(self, step: int) -> Tensor:
        """Unnormalised weights u of the micro-batch collected last, before its step is complete: [b] float64, host.

        They come from the figures of earlier steps, and `finish` gives the same ones. In the first step of a run, where
        there are none, those of its first micro-batch over all ranks serve for the whole step.
        """
        assert not self._complete, "the step's own statistics are not known before `finish`"
        self.settle()
        if self._running is not None and self._figures is None:
            self._figures, self._extremes = self._running.current, self._range
            if self._figures is None:
                seen = self._gather().only_counted()
                if len(seen):
                    values = signal_values(self._config, seen)
                    self._figures, self._extremes = self._function.fit(values), _range(values)
        batch = Samples.of_rows(self._rows[-1].cpu(), *self._columns)
        terms = torch.zeros(len(batch), dtype=torch.float64)
        if batch.counted.any():
            values = signal_values(self._config, batch.only_counted())
            terms[batch.counted] = self._terms(values, self._figures, self._scheduled(step))
        if self._config.weighting.placebo:
            block = dist.get_rank(self._group), len(self._rows) - 1
            terms = permuted(terms, batch.counted, (step, *block))
        return terms

    def finish(self, step: int) -> StepWeights:
        """Weigh all samples collected since the last call, as optimizer step ``step`` (counted from 1).

        Raises:
            NonFiniteError: on every rank alike, if no sample of the step that has targets is finite. The step is
                forgotten.
        """
        self.settle()
        samples = self._gather(complete=True)
        self.targets = int(samples.targets.sum())
        if not samples.counted.any():
            return self._without_samples(samples, step)
        kept = samples.only_counted()
        gradients = None
        if self._features:
            features = self._sizes.padded(torch.cat(self._features))
            gradients = Gradients(features, self._sizes.placed(samples.counted), self._group)
        values = signal_values(self._config, kept, gradients)
        fitted = self._function.fit(values)
        if self._figures is None and self._running is not None:
            self._figures, self._extremes = self._running.current, self._range
        figures = fitted if self._figures is None else self._figures

        tau = scheduled = self._scheduled(step)
        if self._config.min_effective_share is not None:
            floor = self._config.min_effective_share * len(kept)
            tau = tau_with_floor(lambda t: self._function.terms(values, figures, t, complete=True), tau, floor)
        terms = torch.zeros(len(samples), dtype=torch.float64)
        terms[samples.counted] = self._terms(values, figures, tau)
        if self._config.weighting.placebo:
            terms = self._placebo(terms, samples.counted, step)
        total = terms.sum()
        near_duplicates = None
        if self._config.near_duplicates is not None and gradients is not None:
            near_duplicates = gradients.near_duplicate_share(self._config.near_duplicates)

        def rest() -> dict[str, Any]:
            statistics: dict[str, Any] = {"step": step}
            if self._config.min_effective_share is not None and self._schedule is not None:
                statistics["tau_scheduled"] = scheduled
            if self._schedule is not None:
                statistics |= {"tau": tau, "stage": self._schedule.stage(step)}
            else:
                statistics["stage"] = "constant"
            statistics |= describe(samples, terms / total) | self._function.describe(figures, tau)
            if near_duplicates is not None:
                statistics["near_duplicate_share"] = near_duplicates.item()
            if self._schedule is not None:
                self._schedule.observe(step, statistics["loss"])
                if self._config.schedule.kind == "auto" and self._schedule.switch_step is not None:
                    statistics["switch_step"] = self._schedule.switch_step
            if self._worth is not None:
                statistics |= self._observe(self._worth, kept, values, figures, terms[samples.counted])
            if self._running is not None:
                self._running.update(fitted)
                self._range = _range(values) if self._bounded else None
            return statistics

        local, own, total_sketch = self._sizes.own(terms), samples.part(self._sizes.own), self._total_sketch
        self.forget_step()
        self._later = statistics = cache(rest)
        mean, weights = (total / len(terms)).item(), terms / total
        return StepWeights((local / total).float(), local, total_sketch, mean, statistics, samples, weights, own)

    def settle(self) -> None:
        """Tell and learn what is left of the step finished last."""
        if self._later is not None:
            later, self._later = self._later, None
            later()

    def _observe(self, worth: Worth, kept: Samples, values: Tensor, figures: Any, terms: Tensor) -> dict[str, float]:
        """Take in what the samples that count were worth, and describe the gradient that they have in common."""
        if len(kept) < 2:
            return {}
        noise, signal = worth.observe(kept, terms)
        if self._config.calibrates:
            self._function.learn(values[None], figures, noise[None], signal[None])
        square, rest = worth.moments
        scale = worth.noise_scale
        found = {"gradient_sq_norm": square, "gradient_noise": rest}
        if scale.samples is not None:
            found |= {"noise_scale": scale.samples, "noise_scale_tokens": scale.samples * scale.tokens_per_sample}
        return found

    def _placebo(self, terms: Tensor, counted: Tensor, step: int) -> Tensor:
        """``terms`` ([N] of all ranks) permuted: of the whole step, or as they were given to every micro-batch."""
        if self._complete:
            return permuted(terms, counted, (step,))
        return permuted_by_micro_batch(terms, counted, self._sizes.by_rank, step)

    def _without_samples(self, samples: Samples, step: int) -> StepWeights:
        """What a step is in which no sample counts: nothing is learned from it."""
        weights = torch.zeros(len(samples), dtype=torch.float64)
        nothing, own, total_sketch = self._sizes.own(weights), samples.part(self._sizes.own), self._total_sketch
        self.forget_step()
        if samples.nonfinite:
            raise NonFiniteError(
                f"optimizer step {step}: none of the {samples.nonfinite} samples with targets has a finite loss and "
                f"self-influence; nothing was updated (look at the data, the learning rate and the precision)"
            )
        statistics = {"step": step} | count(samples)
        return StepWeights(nothing.float(), nothing, total_sketch, 0.0, lambda: statistics, samples, weights, own)

    def state_dict(self) -> dict[str, Any]:
        """State to keep in a checkpoint between optimizer steps: plain numbers, and tensors on the host."""
        self.settle()
        state: dict[str, Any] = {}
        if self._schedule is not None:
            state["schedule"] = self._schedule.state_dict()
        if self._running is not None:
            state["running"] = {self._running_key: self._running.state_dict()}
        if self._range is not None:
            state["range"] = {self._running_key: self._range.tolist()}
        if learned := self._function.state_dict():
            state["learned"] = {self._running_key: learned}
        if self._worth is not None:
            state["worth"] = self._worth.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; a step in progress is forgotten.

        Figures of another signal, normalizer or weight function than the configured ones are left aside: they are in
        another unit, and the configured ones start anew.
        """
        self.settle()  # what is told of a step has nothing to do with what is restored
        self.forget_step()
        if self._schedule is not None:
            self._schedule.load_state_dict(state.get("schedule", {}))
        if self._running is not None:
            figures = state.get("running", {}).get(self._running_key)
            self._running = self._function.running()
            if self._running is not None and figures is not None:
                self._running.load_state_dict(figures)
            bounds = state.get("range", {}).get(self._running_key) if self._bounded else None
            self._range = None if bounds is None else torch.tensor(bounds, dtype=torch.float64)
        self._function = build_weight_function(self._config)
        if self._running_key in state.get("learned", {}):
            self._function.load_state_dict(state["learned"][self._running_key])
        if self._worth is not None:
            self._worth = Worth(self._config)
            if "worth" in state:
                self._worth.load_state_dict(state["worth"])

    @property
    def _running_key(self) -> str:
        config = self._config
        unit = config.normalizer if config.has_temperature else config.weighting_kind
        more = [*config.weighting.features, config.alignment_with] if config.calibrates else []
        return " ".join([config.signal, unit, *more])

    def forget_step(self) -> None:
        """Forget the step in progress."""
        self._rows, self._features, self._sketches = [], [], []
        self._figures = self._extremes = self._total_sketch = None

    def _terms(self, values: Tensor, figures: Any, tau: float) -> Tensor:
        terms = self._function.terms(values, figures, tau, complete=self._complete)
        if not self._bounded:
            return terms
        extremes = _range(values) if self._extremes is None else self._extremes
        expected = self._function.terms(extremes, figures, tau, complete=False).max()  # u is monotone in the value
        return (terms / expected).clamp(max=LARGEST_TERM)

    def _scheduled(self, step: int) -> float:
        if self._config.signal == "uniform":
            return 0.0
        return 1.0 if self._schedule is None else self._schedule.tau(step)

    @property
    def _columns(self) -> list[str]:
        """What a row holds beside loss, targets and source."""
        features = self._config.features
        held = {
            "scores": self._config.computes_gradients,
            "reference_alignment": self._config.uses_reference,
            "vocabulary_scores": "vocabulary" in features,
            "momentum_alignment": "momentum" in features,
        }
        return [name for name in COLUMNS if held[name]]

    def _gather(self, *, complete: bool = False) -> Samples:
        """The samples so far of every rank, ordered by rank, then as seen; on the host, which synchronises once.

        ``complete``: they are all of the step's, so that each can be compared with the others.
        """
        rows, columns = torch.cat(self._rows), self._columns
        if complete and self._config.aligns:
            counted = [Samples.of_rows(part, *columns).counted for part in self._rows]
            alignment, self._total_sketch = leave_one_out(self._sketches, counted, self._group)
            rows, columns = torch.cat([rows, alignment[:, None]], dim=1), [*columns, "alignment"]
        self._sizes = Sizes.of([*map(len, self._rows)], self._group, rows.device, unequal=self._unequal)
        if not complete:
            return Samples.of_rows(self._sizes.gather(rows, self._group), *columns)
        every, told = self._sizes.gather_with(self.messages.rows(rows.shape[1], rows.device), rows, self._group)
        self.messages.hear(told)
        return Samples.of_rows(every, *columns)


def _range(values: Tensor) -> Tensor:
    """Least and greatest of ``values`` ([n], n ≥ 1): [2]."""
    return torch.stack(values.aminmax())
