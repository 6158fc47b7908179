"""`engine.presence`: the scores, weights and statistics of the training step in progress."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch import Tensor

from presence_ds.engine.checks import check_sketches
from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.momentum import Momentum
from presence_ds.engine.reference import Reference
from presence_ds.engine.resume_rules import PRESENCE, Change, changes, plain_values, refuse
from presence_ds.engine.scorer import Found
from presence_ds.engine.strategies import MicroStep, build_strategy
from presence_ds.errors import ConfigError, NonFiniteError
from presence_ds.reweighting import Messages, MicroBatch, Reweighting, Samples, StepWeights, Worth, check_comparable


class Presence:
    """What PRESENCE knows of the current step on this rank.

    Attributes:
        config: the configuration in force.
        strategy: runs the model, and brings here what it finds out.
        by_document: whether what is of a sample here is of a document of one: then b is the number of all documents of
            a micro-batch, in order of row and position, and G·b that of an optimizer step.
        scores: [b] float32, raw self-influence of the last micro-batch; None before the first, and without gradients.
        vocabulary_scores: [b] float32, what of them is in embeddings and output head; None where that is not asked for.
        momentum_alignment: [b] float32, that of each gradient with the direction of the steps before; as well.
        losses: [b] float32, per-sample losses of the last micro-batch; None before the first.
        has_targets: [b] bool, whether a sample of the last micro-batch has a target token; None before the first.
        weights: [G·b] float32 on the host, final weights of this rank's samples of the last finished optimizer step
            in the order they were seen; over all ranks they sum to 1. None before the first.
        alignments: [G·b] float32 on the host, inner product of the gradient of each of these samples with the mean
            gradient of all other samples of the step, without bias; 0 for a sample that does not count, or is alone.
            None before the first step, and where ``config`` does not align.
        reference_alignments: the same with the reference gradient; None before the first step, and without one.
        step_samples: all N samples of that step, of every rank, on the host; None before the first, and if fp16
            overflowed in every sample.
        step_weights: [N] float64 on the host, theirs, summing to 1; None likewise.
        own_samples: those of ``step_samples`` that are this rank's, in the order of ``weights``; None likewise.
        final: [G·b] float64 on the host, ``weights`` in units in which they sum to the number of rows over all ranks;
            0 for samples that are not finite or have no targets.
        divisor: what DeepSpeed must divide the gradients by that the step has accumulated.
        own_terms: the model's own terms of the micro-batches trained on so far, 0-dimensional.
        is_empty: whether no sample of the step in progress, or of the last finished one, had targets.
        scorer: forward and input-gradient sweep; None where no gradients are computed.
        changes: what in the configuration is not what it was when the checkpoint was written that was loaded last.
    """

    def __init__(self, config: PresenceConfig, engine: DeepSpeedEngine) -> None:
        """``engine`` gives the model, whose parameters are where they will stay, and the shape of an optimizer step.

        Raises:
            ConfigError: a field of ``config`` cannot be used with the model or with the number of accumulation steps.
            AttributionError: one_pass cannot train a module of the model.
        """
        self._micro_batch_size = engine.train_micro_batch_size_per_gpu()
        self._accumulation_steps = accumulation_steps = engine.gradient_accumulation_steps()
        self._group = group = engine.data_parallel_group
        device = engine.device
        running = config.uses_running_statistics(accumulation_steps)
        self.config = config
        self.scores: Tensor | None = None
        self.vocabulary_scores: Tensor | None = None
        self.momentum_alignment: Tensor | None = None
        self.losses: Tensor | None = None
        self.has_targets: Tensor | None = None
        self.weights: Tensor | None = None
        self.alignments: Tensor | None = None
        self.reference_alignments: Tensor | None = None
        self._result: StepWeights | None = None  # of the last finished step
        self._own_terms_of_step: Tensor | None = None  # their sum over ranks of the means over micro-batches
        self.step_samples: Samples | None = None
        self.own_samples: Samples | None = None
        self.step_weights: Tensor | None = None
        self.changes: list[Change] = []
        self.strategy = build_strategy(
            engine.module, config, accumulation_steps=accumulation_steps, group=group, device=device
        )
        self.scorer = self.strategy.scorer
        self._values = plain_values(config, running=running)
        self._momentum: Momentum | None = None
        if "momentum" in config.features:
            self._momentum = Momentum(device)
        self._reference: Reference | None = None
        if config.uses_reference:
            self._reference = Reference(config.reference_decay, group, device)
        self.check_memory(self._micro_batch_size)
        self.by_document = config.granularity == "document"
        self._reweighting = Reweighting(
            config, running=running, group=group, bounded=engine.fp16_enabled(), unequal=self.by_document
        )
        self.begin_step()

    def check_memory(self, micro_batch: int, unit: str = "samples") -> None:
        """Raise `ConfigError` where comparing the samples of a step takes more memory than a rank should give to it.

        Args:
            micro_batch: those of a micro-batch; of documents the number is known when there is one.
            unit: what the message calls them.
        """
        samples = dist.get_world_size(self._group) * self._accumulation_steps * micro_batch
        check_comparable(self.config, samples, self.config.projection_dim**2, "presence", unit)
        if self.config.sketches_gradients:
            assert self.scorer is not None
            widths = self.scorer.gradient_width, self.scorer.sketch_width
            check_sketches(self.config, micro_batch, self._accumulation_steps, *widths, unit=unit)

    @property
    def deferred(self) -> bool:
        """Whether micro-batches wait until the step's last one is scored (strategy two_pass)."""
        return self.config.strategy == "two_pass"

    @property
    def worth(self) -> Worth | None:
        """What the weights in use and others, and the sources, have been worth over the last steps.

        And the noise scale; on every rank alike. None where ``config`` does not align.
        """
        return self._reweighting.worth

    @property
    def statistics(self) -> dict[str, Any]:
        """Figures of the last finished optimizer step over all ranks (`presence_ds.reweighting.StepWeights`).

        Empty before the first, and if fp16 overflowed in every sample; only counts if no sample had targets. A model's
        own terms are in it as ``auxiliary_loss``, their mean over micro-batches and ranks, once the step's backward has
        run.
        """
        if self._result is None:
            return {}
        statistics = self._result.statistics
        if self._own_terms_of_step is not None:
            mean, self._own_terms_of_step = self._own_terms_of_step, None
            statistics["auxiliary_loss"] = mean.item() / dist.get_world_size(self._group)
        return statistics

    def settle(self) -> None:
        """Tell and learn what the last finished step has left, while the device has work to do; once in each step."""
        self._reweighting.settle()

    @property
    def targets(self) -> int:
        """Target tokens of the last finished optimizer step, over all ranks and micro-steps; 0 before the first."""
        return self._reweighting.targets

    @property
    def messages(self) -> Messages:
        """Small numbers that ranks tell each other along with a step's scores: tell them before its last forward."""
        return self._reweighting.messages

    @property
    def scored(self) -> list[str]:
        """Name of every parameter that enters the self-influence."""
        return [] if self.scorer is None else self.scorer.scored

    def begin_step(self) -> None:
        """Forget the micro-batches of the step before, finished or not."""
        self._reweighting.forget_step()
        self.own_terms: list[Tensor] = []
        self.divisor = 1.0
        self._sizes: list[int] = []  # of the micro-batches collected
        self.is_empty = self._overflowed = False
        self._before_step = self._reweighting.state_dict()
        self._direction_before = None if self._momentum is None else self._momentum.direction

    def collect(
        self,
        at: MicroStep,
        sources: Tensor | None,
        found: Found,
    ) -> Tensor:
        """Take in what is known of the samples of this rank's next micro-batch.

        Args:
            sources: [b] int64, or None if all samples are of one source.

        Returns:
            [b] bool on the device: whether everything known of the sample is finite.
        """
        losses, targets, scores = found.losses, found.targets, found.scores
        if found.rows != self._micro_batch_size:
            raise ConfigError(
                f"the batch has {found.rows} samples, train_micro_batch_size_per_gpu is {self._micro_batch_size}: "
                f"give full micro-batches (drop_last=True)"
            )
        self.losses, self.scores, self.has_targets = losses, scores, targets > 0
        self.vocabulary_scores, self.momentum_alignment = found.vocabulary_scores, None
        if self._momentum is not None:
            assert found.sketches is not None
            self.momentum_alignment = self._momentum.align(found.sketches)
        if sources is None:
            sources = torch.zeros(found.rows, dtype=torch.int64, device=losses.device)
        if found.documents is not None:
            sources = sources.to(losses.device)[found.documents.rows]
        self._sizes.append(len(losses))
        alignment = None
        if self._reference is not None and found.sketches is not None:
            alignment = self._reference.align(found.sketches)
        finite = self._reweighting.collect(
            MicroBatch(
                losses=losses,
                targets=targets,
                sources=sources,
                scores=scores,
                reference_alignment=alignment,
                vocabulary_scores=found.vocabulary_scores,
                momentum_alignment=self.momentum_alignment,
                features=found.features,
                sketches=found.sketches,
            )
        )
        if at.may_overflow and (losses.isfinite() & self.has_targets & ~finite).any():
            self._overflowed = True
        return finite

    def weigh(self, at: MicroStep) -> Tensor:
        """Unnormalised weights of the micro-batch collected last, [b] float64 on the host; all ranks agree on them.

        Before the step's last micro-step they come from earlier steps; the last one finishes the step.
        """
        if not at.last:
            weights = self._reweighting.provisional(at.step)
        else:
            result = self.finish(at)
            weights = self.final[-self._sizes[-1] :]
            if len(self._sizes) > 1 and result is not None and not self.is_empty:
                # what is accumulated already, as many micro-steps as there were, has weights that are not divided yet
                weights, self.divisor = result.terms[-self._sizes[-1] :], self._per_row(result)
        return torch.ones_like(weights) if self._overflowed else weights

    def finish(self, at: MicroStep) -> StepWeights | None:
        """The weights of the whole step; None if fp16 overflowed in every sample, so that it is going to be skipped."""
        count = self._reweighting.collected
        self._own_terms_of_step = None
        try:
            result = self._reweighting.finish(at.step)
        except NonFiniteError:
            if not at.may_overflow:
                raise
            self._overflowed = True
            self.final = torch.zeros(count, dtype=torch.float64)
            self.weights, self._result = self.final.float(), None
            self.step_samples = self.step_weights = self.own_samples = None
            self.alignments = torch.zeros_like(self.weights) if self.config.aligns else None
            self.reference_alignments = torch.zeros_like(self.weights) if self.config.uses_reference else None
            return None
        self.weights, self._result = result.local, result
        self.step_samples, self.step_weights, self.own_samples = result.samples, result.weights, result.own
        self.alignments, self.reference_alignments = result.own.alignment, result.own.reference_alignment
        if self._momentum is not None:
            assert result.total_sketch is not None
            self._momentum.update(result.total_sketch)
        self.is_empty = result.mean_term == 0.0
        self.final = result.terms if self.is_empty else result.terms / self._per_row(result)
        return result

    def _per_row(self, result: StepWeights) -> float:
        """What the terms of the step come to for one of its rows; that is their mean, unless rows have documents."""
        if not self.by_document:
            return result.mean_term
        rows = dist.get_world_size(self._group) * len(self._sizes) * self._micro_batch_size
        return float(result.mean_term * len(result.samples) / rows)

    def overflow_or(self, loss: Tensor) -> Tensor:
        """``loss``; if fp16 overflowed its gradient is not finite, for the step to be skipped and the scale lowered."""
        if self._overflowed:
            loss.register_hook(lambda gradient: gradient * torch.inf)
        return loss

    def report_own_terms(self) -> None:
        """Add up the model's own terms of the step, on every rank, for the statistics; nothing if it has none."""
        if not self.own_terms or self._result is None or self.is_empty:
            return
        mean = torch.stack(self.own_terms).float().mean()
        dist.all_reduce(mean, group=self._group)
        self._own_terms_of_step = mean

    def undo_step(self) -> None:
        """Forget what was learned from a step that was skipped; what is told of it stays."""
        self._reweighting.load_state_dict(self._before_step)
        if self._momentum is not None:
            self._momentum.direction = self._direction_before

    def observe_reference(
        self, forward: Callable[..., Any], args: tuple[Any, ...], batch: dict[str, Any], scale: float
    ) -> None:
        """Take in the gradient of a micro-batch of the reference stream, as a strategy takes one."""
        if self._reference is None or self.scorer is None:
            raise ConfigError(
                f"presence.signal is {self.config.signal} and presence.alignment_with {self.config.alignment_with}: a "
                f"reference is used by signal alignment, and with alignment_with reference"
            )
        scored = self.scorer.score(forward, args, self.strategy.objective.options | batch, scale)
        assert scored.sketches is not None
        without = scored.targets == 0
        self._reference.update(scored.sketches.masked_fill(without[:, None], torch.nan))  # passes over them

    def state_dict(self) -> dict[str, Any]:
        """State to keep in a checkpoint between optimizer steps."""
        state: dict[str, Any] = {"reweighting": self._reweighting.state_dict(), "config": self._values}
        if self._reference is not None:
            state["reference"] = self._reference.state_dict()
        if self._momentum is not None:
            state["momentum"] = self._momentum.state_dict() | {"space": self._space}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ConfigError: the state is of a configuration that cannot become this one (`resume_rules.PRESENCE`).
        """
        self.changes = changes(PRESENCE, state.get("config", {}), self._values, "presence.")
        refuse(self.changes, "the checkpoint", "train anew")
        self._reweighting.load_state_dict(state["reweighting"])
        if self._reference is not None and "reference" in state:
            self._reference.load_state_dict(state["reference"])
        if self._momentum is not None:
            held = state.get("momentum", {})
            self._momentum.load_state_dict(held if held.get("space") == self._space else {"direction": None})

    @property
    def _space(self) -> str:
        """What sketches are of: vectors of different spaces have nothing to do with each other."""
        assert self.scorer is not None
        config = self.config
        how = (config.estimator, config.projection_dim, config.alignment_dim, config.seed)
        return repr((*how, self.scorer.scored))
