"""What a strategy is: the passes of a micro-step over one model, and when all ranks agree on weights in between."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from presence_ds.engine.batch import is_encoder_decoder
from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.objective import Objective
from presence_ds.engine.scorer import Scorer
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters, vocabulary_parameters

if TYPE_CHECKING:
    from presence_ds.engine.engine import PresenceEngine

Forward = Callable[..., Any]


class MicroStep(NamedTuple):
    """Where a micro-step stands in training.

    Attributes:
        step: optimizer step, counted from 1.
        last: whether this is the step's last micro-step.
        scale: what DeepSpeed multiplies the loss by.
        may_overflow: whether a gradient that is not finite may be for want of a smaller scale.
    """

    step: int
    last: bool
    scale: float = 1.0
    may_overflow: bool = False


class Strategy(ABC):
    """The model's side of the method; what it finds out goes to `engine.presence`, which knows the whole step.

    Attributes:
        scorer: forward and input-gradient sweep; None where no gradients are computed.
        objective: what the model is trained on.
    """

    def __init__(
        self,
        model: nn.Module,
        config: PresenceConfig,
        *,
        accumulation_steps: int = 1,
        group: dist.ProcessGroup | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """``model``'s parameters are where they will stay.

        ``group`` is the data-parallel group; None: this process has no others, and `run_alone` is what is called.
        """
        loss = SampleLoss(config.loss_normalizer, shifted=is_encoder_decoder(model), kernels=config.kernels)
        # The sweeps of one_pass start from the losses of samples alone, and what it accumulates is divided as a whole.
        trains_terms = config.strategy == "two_pass" or (not config.computes_gradients and accumulation_steps == 1)
        self.objective = Objective(model, loss, trains_terms=trains_terms)
        self.scorer: Scorer | None = None
        self._model = model
        self._group = group
        self._compiled: Forward | None = None
        if config.computes_gradients:
            influence = SelfInfluence(
                select_parameters(model, config.layers),
                config.projection_dim if config.estimator == "projected" else None,
                config.seed,
                device,
                keeps_sketches=config.keeps_sketches,
                apart=vocabulary_parameters(model) if "vocabulary" in config.features else (),
                kernels=config.kernels,
            )
            self.scorer = Scorer(
                model,
                influence,
                loss,
                granularity=config.granularity,
                strategy=config.strategy,
                features=config.projection_dim**2 if config.compares_gradients else None,
                sketches=config.sketches_gradients,
                tells_apart="vocabulary" in config.features,
                alignment_dim=config.alignment_dim,
                group=group,
            )

    @abstractmethod
    def forward(
        self, engine: "PresenceEngine", args: tuple[Any, ...], batch: dict[str, Any], sources: Tensor | None
    ) -> Tensor:
        """Score a micro-batch and, unless it has to wait, weigh it: the loss for ``engine.backward``.

        Args:
            args, batch: what the model takes, with ``labels`` in ``batch``.
            sources: [b] int64 source ids, or None if all samples are of one source.
        """

    def backward(self, engine: "PresenceEngine", loss: Tensor, backward: Callable[[Tensor], Any]) -> Any:
        """What follows `forward`; ``backward`` is DeepSpeed's, of one micro-step."""
        if not engine.presence.is_empty:
            return backward(loss)
        with engine.boundary(False):  # such a step is passed over
            return backward(loss)

    @abstractmethod
    def run_alone(self, batch: dict[str, Any]) -> None:
        """All passes of a micro-step, every sample with a weight of 1: no engine, no other ranks, no figures.

        What remains are the parameters' gradients. For whoever measures the passes.
        """

    def forget_step(self) -> None:  # noqa: B027 -- where there are any
        """Forget the micro-batches of the step in progress."""

    def compile(self, backend: str, arguments: Mapping[str, Any]) -> None:
        """Compile the forwards that run no layer rules (`presence_ds.engine.checks.check_compilable`)."""
        arguments = dict(arguments)
        if backend == "inductor" and "mode" not in arguments:
            # its own random numbers would let dropout fall otherwise than in the score pass
            arguments["options"] = {"fallback_random": True} | arguments.get("options", {})
        self._compiled = torch.compile(self._model.forward, backend=backend, **arguments)
