"""`engine.presence`: the scores, weights and statistics of the training step in progress."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from presence_ds.engine.batch import is_encoder_decoder, takes
from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.loss_only import losses_alone, losses_for_backward
from presence_ds.engine.one_pass import weight_gradient_loss
from presence_ds.engine.own_terms import OwnTerms
from presence_ds.engine.reference import Reference
from presence_ds.engine.resume_rules import Change, plain_values, presence_changes, refuse
from presence_ds.engine.scorer import Scorer
from presence_ds.engine.two_pass import Waiting, random_states
from presence_ds.engine.weighted_pass import Objective, mean_loss, weighted_mean_loss
from presence_ds.errors import ConfigError, NonFiniteError
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from presence_ds.reweighting import MicroBatch, Reweighting, StepWeights, check_comparable

Forward = Callable[..., Any]


class _Scores(NamedTuple):
    losses: Tensor
    scores: Tensor | None
    features: Tensor | None
    make_loss: Callable[[Tensor], Tensor]  # from the weights [b], for the backward; not called by two_pass


class Presence:
    """What PRESENCE knows of the current step on this rank.

    Attributes:
        config: the configuration in force.
        deferred: whether micro-batches wait until the step's last one is scored (strategy two_pass).
        scores: [b] float32, raw self-influence of the last micro-batch; None before the first, and with signal loss.
        losses: [b] float32, per-sample losses of the last micro-batch; None before the first.
        has_targets: [b] bool, whether a sample of the last micro-batch has a target token; None before the first.
        weights: [G·b] float32 on the host, final weights of this rank's samples of the last finished optimizer step
            in the order they were seen; over all ranks they sum to 1. None before the first.
        statistics: figures of that step over all ranks as plain numbers
            (`presence_ds.reweighting.statistics.describe`); empty if fp16 overflowed in every sample, and only counts
            if no sample had targets. A model's own terms are in it as ``auxiliary_loss``, their mean over micro-batches
            and ranks, once the step's backward has run.
        is_empty: whether no sample of the step in progress, or of the last finished one, had targets.
        scorer: forward and input-gradient sweep; None with signal loss.
        changes: what in the configuration is not what it was when the checkpoint was written that was loaded last.
    """

    def __init__(
        self,
        config: PresenceConfig,
        model: nn.Module,
        *,
        micro_batch_size: int,
        accumulation_steps: int,
        group: dist.ProcessGroup,
        device: torch.device,
        fp16: bool = False,
    ) -> None:
        """``model``'s parameters are where they will stay; ``group`` is the data-parallel group.

        ``fp16``: whether gradients are in fp16, whose range they must not leave by the weights.

        Raises:
            ConfigError: a field of ``config`` cannot be used with the model or with ``accumulation_steps``.
            AttributionError: one_pass cannot train a module of the model.
        """
        running = config.uses_running_statistics(accumulation_steps)
        samples = dist.get_world_size(group) * accumulation_steps * micro_batch_size
        check_comparable(config, samples, config.projection_dim**2, "presence")
        self.config = config
        self.deferred = config.strategy == "two_pass"
        self.scores: Tensor | None = None
        self.losses: Tensor | None = None
        self.has_targets: Tensor | None = None
        self.weights: Tensor | None = None
        self.statistics: dict[str, Any] = {}
        self.is_empty = False
        self.scorer: Scorer | None = None
        self.changes: list[Change] = []
        self._values = plain_values(config, running=running)
        self._model = model
        self._loss = SampleLoss(config.loss_normalizer, shifted=is_encoder_decoder(model))
        self._objective = Objective(model, self._loss, OwnTerms(model, shifted=self._loss.shifted))
        # A training forward has no use for keys and values to go on from; the model's configuration stays as it is.
        self._options: dict[str, Any] = {"use_cache": False} if takes(model, "use_cache") else {}
        self._options |= self._objective.own_terms.options
        self._reference = Reference(config.reference_decay, group, device) if config.signal == "alignment" else None
        self._influence: SelfInfluence | None = None
        if config.signal != "loss":
            self._influence = SelfInfluence(
                select_parameters(model, config.layers),
                config.projection_dim if config.estimator == "projected" else None,
                config.seed,
                device,
                keeps_sketches=config.compares_gradients or config.granularity == "global_microbatch",
            )
            self.scorer = Scorer(
                model,
                self._influence,
                self._loss,
                granularity=config.granularity,
                strategy=config.strategy,
                group=group,
            )
        self._reweighting = Reweighting(config, running=running, group=group, bounded=fp16)
        self._group = group
        self._micro_batch_size = micro_batch_size
        self._accumulation_steps = accumulation_steps
        self._waiting: list[Waiting] = []
        self._terms: list[Tensor] = []  # of the micro-batches whose weighted pass has run
        self._overflowed = False
        self._before_step: dict[str, Any] = {}
        self._compiled: Forward | None = None

    @property
    def targets(self) -> int:
        """Target tokens of the last finished optimizer step, over all ranks and micro-steps; 0 before the first."""
        return self._reweighting.targets

    @property
    def scored(self) -> list[str]:
        """Name of every parameter that enters the self-influence."""
        return [] if self._influence is None else list(self._influence.selected.values())

    def micro_step(
        self,
        forward: Forward,
        args: tuple[Any, ...],
        batch: dict[str, Any],
        sources: Tensor | None,
        *,
        step: int,
        last: bool,
        scale: float = 1.0,
        may_overflow: bool = False,
    ) -> tuple[Tensor, float | None]:
        """Score a micro-batch and, unless it has to wait, weigh it.

        Args:
            forward: the model's own forward.
            args, batch: what it takes, with ``labels`` in ``batch``.
            sources: [b] int64 source ids, or None if all samples are of one source.
            step: optimizer step, counted from 1.
            last: whether this is the step's last micro-step.
            scale: what DeepSpeed multiplies the loss by.
            may_overflow: whether a gradient that is not finite may be for want of a smaller scale.

        Returns:
            The loss for ``engine.backward``, and what DeepSpeed must divide the accumulated gradients by (None: not the
            last micro-step).
        """
        batch = self._options | batch
        if self._objective.own_terms.are_in(batch):
            self._check_own_terms()
        states = random_states() if self.deferred else None
        losses, scores, features, make_loss = self._score(forward, args, batch, scale)
        targets = self._loss.num_targets(batch["labels"])
        self.losses, self.scores, self.has_targets = losses, scores, targets > 0
        self._collect(losses, targets, scores, features, sources)
        finite = losses.isfinite() if scores is None else losses.isfinite() & scores.isfinite()
        if may_overflow and (losses.isfinite() & self.has_targets & ~finite).any():
            self._overflowed = True
        result = self._finish(step, may_overflow) if last else None
        if states is not None:
            self._waiting.append(Waiting(args, batch, states, finite))
            counted = finite & self.has_targets
            weights = counted if result is None else result.terms[-len(losses) :].to(finite.device) * counted
            return mean_loss(losses, weights.to(losses.dtype)), 1.0
        if last:
            self.report_own_terms()
        weights, divisor = self._weigh(step, last, result)
        if self._overflowed:  # the step is going to be skipped; its gradient must not be finite
            return _Overflow.apply(make_loss(torch.ones_like(weights))), divisor
        return make_loss(weights), divisor

    def weighted_loss(self, forward: Forward, index: int) -> Tensor:
        """The loss for the backward of the step's micro-batch ``index``, once all have been scored (two_pass)."""
        start = index * self._micro_batch_size
        weights = self._final[start : start + self._micro_batch_size]
        loss, terms = self._waiting[index].weighted_loss(self._objective, self._compiled or forward, weights)
        if terms is not None:
            self._terms.append(terms)
        return _Overflow.apply(loss) if self._overflowed else loss

    def look_for_own_terms(self, run: Callable[..., Any], inputs: dict[str, Tensor]) -> None:
        """Find out which terms the model adds to its loss (`OwnTerms.look_for`).

        Raises:
            ConfigError: they cannot be trained, or not as configured.
        """
        self._objective.own_terms.look_for(run, inputs | self._objective.own_terms.options)
        if self._objective.own_terms.found:
            self._check_own_terms()

    def report_own_terms(self) -> None:
        """Put the model's own terms of the step into the statistics, on every rank; nothing if it has none."""
        if not self._terms or "loss" not in self.statistics:
            return
        mean = torch.stack(self._terms).float().mean()
        dist.all_reduce(mean, group=self._group)
        self.statistics["auxiliary_loss"] = mean.item() / dist.get_world_size(self._group)

    def compile(self, backend: str, arguments: Mapping[str, Any]) -> None:
        """Compile the forwards that run no layer rules (`presence_ds.engine.checks.check_compilable`)."""
        arguments = dict(arguments)
        if backend == "inductor" and "mode" not in arguments:
            # its own random numbers would let dropout fall otherwise than in the score pass
            arguments["options"] = {"fallback_random": True} | arguments.get("options", {})
        self._compiled = torch.compile(self._model.forward, backend=backend, **arguments)

    def begin_step(self) -> None:
        """Forget the micro-batches of the step before."""
        self._waiting, self._terms, self._overflowed, self.is_empty = [], [], False, False
        self._before_step = self._reweighting.state_dict()

    def undo_step(self) -> None:
        """Forget what the running statistics and the schedule learned from a step that was skipped."""
        self._reweighting.load_state_dict(self._before_step)

    def observe_reference(self, forward: Forward, args: tuple[Any, ...], batch: dict[str, Any], scale: float) -> None:
        """Take in the gradient of a micro-batch of the reference stream, as `micro_step` takes one."""
        if self._reference is None or self.scorer is None:
            raise ConfigError(f"presence.signal is {self.config.signal}: a reference is only used by alignment")
        features = self.scorer.score(forward, args, self._options | batch, scale).features
        assert features is not None
        without = ~self._loss.has_targets(batch["labels"])
        self._reference.update(features.masked_fill(without[:, None], torch.nan))  # passes over them

    def state_dict(self) -> dict[str, Any]:
        """State to keep in a checkpoint between optimizer steps."""
        state: dict[str, Any] = {"reweighting": self._reweighting.state_dict(), "config": self._values}
        if self._reference is not None:
            state["reference"] = self._reference.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ConfigError: the state is of a configuration that cannot become this one (`resume_rules.PRESENCE`).
        """
        self.changes = presence_changes(state.get("config", {}), self._values)
        refuse(self.changes, "the checkpoint", "train anew")
        self._reweighting.load_state_dict(state["reweighting"])
        if self._reference is not None and "reference" in state:
            self._reference.load_state_dict(state["reference"])
        self._waiting = []

    def _check_own_terms(self) -> None:
        if not self.deferred and (self.config.signal != "loss" or self._accumulation_steps > 1):
            raise ConfigError(
                f"model {type(self._model).__name__} adds terms of its own to the cross-entropy, such as one that "
                f"balances its experts, and strategy one_pass cannot train them beside weights: use presence.strategy "
                f"two_pass, or leave them out of its configuration (output_router_logits)"
            )

    def _score(self, forward: Forward, args: tuple[Any, ...], batch: dict[str, Any], scale: float) -> _Scores:
        if self.scorer is not None:
            scored = self.scorer.score(forward, args, batch, scale)
            return _Scores(scored.losses, scored.scores, scored.features, partial(weight_gradient_loss, scored))
        forward = self._compiled or forward
        if self.deferred:
            losses, terms = losses_alone(self._objective, forward, args, batch), None
            differentiable = losses
        else:
            losses, differentiable, terms = losses_for_backward(self._objective, forward, args, batch, self._group)
        if terms is not None:
            self._terms.append(terms.detach())
        return _Scores(losses, None, None, partial(weighted_mean_loss, differentiable, terms=terms))

    def _weigh(self, step: int, last: bool, result: StepWeights | None) -> tuple[Tensor, float | None]:
        """Unnormalised weights of the last micro-batch, [b] float64, and what DeepSpeed divides the gradients by."""
        if not last:
            return self._reweighting.provisional(step), None
        if result is None:
            return torch.zeros(self._micro_batch_size, dtype=torch.float64), 1.0
        if self.is_empty:
            return result.terms[-self._micro_batch_size :], 1.0
        if self._accumulation_steps == 1:  # nothing is accumulated yet: weigh by the final weights straight away
            return result.terms / result.mean_term, 1.0
        return result.terms[-self._micro_batch_size :], result.mean_term

    def _collect(
        self,
        losses: Tensor,
        targets: Tensor,
        scores: Tensor | None,
        features: Tensor | None,
        sources: Tensor | None,
    ) -> None:
        count = len(losses)
        if count != self._micro_batch_size:
            raise ConfigError(
                f"the batch has {count} samples, train_micro_batch_size_per_gpu is {self._micro_batch_size}: "
                f"give full micro-batches (drop_last=True)"
            )
        if sources is None:
            sources = torch.zeros(count, dtype=torch.int64, device=losses.device)
        alignment = None if self._reference is None or features is None else self._reference.align(features)
        if not self._reweighting.needs_features:
            features = None
        self._reweighting.collect(MicroBatch(losses, targets, sources, scores, alignment, features))

    def _finish(self, step: int, may_overflow: bool) -> StepWeights | None:
        """The step's weights; None if fp16 overflowed in every sample, so that the step is going to be skipped."""
        try:
            result = self._reweighting.finish(step)
        except NonFiniteError:
            if not may_overflow:
                raise
            self._overflowed = True
            self._final = torch.zeros(self._accumulation_steps * self._micro_batch_size, dtype=torch.float64)
            self.weights, self.statistics = self._final.float(), {}
            return None
        self.weights, self.statistics = result.local, result.statistics
        self.is_empty = result.mean_term == 0.0
        self._final = result.terms if self.is_empty else result.terms / result.mean_term
        return result


class _Overflow(torch.autograd.Function):
    """A loss whose gradient is not finite, so that dynamic loss scaling skips the step and lowers the scale."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0] * torch.inf
