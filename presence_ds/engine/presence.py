"""`engine.presence`: the scores, weights and statistics of the training step in progress."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.one_pass import OnePass
from presence_ds.errors import ConfigError
from presence_ds.influence import SelfInfluence, select_parameters
from presence_ds.reweighting import Reweighting, TemperatureSchedule


class Presence:
    """What PRESENCE knows of the current step on this rank.

    Attributes:
        config: the configuration in force.
        scores: [b] float32, raw self-influence of the last micro-batch; None before the first.
        losses: [b] float32, per-sample losses of the last micro-batch in nats per token; None before the first.
        weights: [G·b] float32 on the host, final weights of this rank's samples of the last finished optimizer step
            in the order they were seen; over all ranks they sum to 1. None before the first.
        statistics: figures of that step over all ranks as plain numbers
            (`presence_ds.reweighting.statistics.describe`).
        scored: name of every parameter that enters the self-influence.
    """

    def __init__(
        self,
        config: PresenceConfig,
        model: nn.Module,
        *,
        micro_batch_size: int,
        accumulation_steps: int,
        group: torch.distributed.ProcessGroup,
        device: torch.device,
    ) -> None:
        """``model``'s parameters are where they will stay; ``group`` is the data-parallel group."""
        statistics = config.statistics or ("batch" if accumulation_steps == 1 else "running")
        if statistics == "batch" and accumulation_steps > 1:
            raise ConfigError(
                f"presence.statistics is batch with gradient_accumulation_steps {accumulation_steps}: in one pass the "
                f"first micro-step is weighed before the last is scored; use running, or 1 accumulation step"
            )
        self.config = config
        self.scores: Tensor | None = None
        self.losses: Tensor | None = None
        self.weights: Tensor | None = None
        self.statistics: dict[str, Any] = {}
        selected = select_parameters(model, config.layers)
        self.scored = list(selected.values())
        projection_dim = config.projection_dim if config.estimator == "projected" else None
        self._strategy = OnePass(model, SelfInfluence(selected, projection_dim, config.seed, device))
        self._reweighting = Reweighting(
            TemperatureSchedule(config.schedule),
            uniform=config.signal == "uniform",
            running=statistics == "running",
            group=group,
        )
        self._micro_batch_size = micro_batch_size
        self._accumulation_steps = accumulation_steps

    @property
    def instrumented(self) -> dict[nn.Module, str]:
        """Path in the model of every module whose parameters' gradients are attributed to samples."""
        return self._strategy.instrumentation.names

    def micro_step(
        self,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        batch: dict[str, Any],
        sources: Tensor | None,
        *,
        step: int,
        last: bool,
    ) -> tuple[Tensor, float | None]:
        """Score a micro-batch and weigh it.

        Args:
            forward, args, batch: as `OnePass.score` takes them.
            sources: [b] int64 source ids, or None if all samples are of one source.
            step: optimizer step, counted from 1.
            last: whether this is the step's last micro-step.

        Returns:
            The loss for ``engine.backward``, and what DeepSpeed must divide the accumulated gradients by (None: not the
            last micro-step).
        """
        scored = self._strategy.score(forward, args, batch)
        count = len(scored.losses)
        if count != self._micro_batch_size:
            raise ConfigError(
                f"the batch has {count} samples, train_micro_batch_size_per_gpu is {self._micro_batch_size}: "
                f"give full micro-batches (drop_last=True)"
            )
        if sources is None:
            sources = torch.zeros(count, dtype=torch.int64, device=scored.losses.device)
        self.scores, self.losses = scored.scores, scored.losses
        terms, result = self._reweighting.add_micro_step(scored.scores, scored.losses, sources, step=step, last=last)
        divisor = None
        if result is not None:
            self.weights, self.statistics, divisor = result.local, result.statistics, result.mean_term
            if self._accumulation_steps == 1:  # nothing is accumulated yet: weigh by the final weights straight away
                terms, divisor = terms / divisor, 1.0
        return self._strategy.weighted_loss(scored, terms), divisor

    def state_dict(self) -> dict[str, Any]:
        """State to keep in a checkpoint between optimizer steps."""
        return {"reweighting": self._reweighting.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._reweighting.load_state_dict(state["reweighting"])
