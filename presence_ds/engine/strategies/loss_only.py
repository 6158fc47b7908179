"""Strategy ``one_pass`` with signal ``loss``: an ordinary forward and backward, and weights from the losses between."""

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.engine.objective import weighted_mean_loss
from presence_ds.engine.strategies.strategy import Forward, Strategy
from presence_ds.engine.zero import gathers_parameters

if TYPE_CHECKING:
    from presence_ds.engine.engine import PresenceEngine


class LossOnly(Strategy):
    """Weighs the losses of a forward before its backward."""

    def forward(
        self, engine: "PresenceEngine", args: tuple[Any, ...], batch: dict[str, Any], sources: Tensor | None
    ) -> Tensor:
        """The weighted mean loss of the micro-batch."""
        presence, at = engine.presence, engine.micro_step()

        def micro_step(forward: Forward, *args: Any, **batch: Any) -> Tensor:
            batch = self.objective.complete(batch)
            found, losses, terms = self._losses(self._compiled or forward, args, batch)
            presence.collect(at, sources, self.objective.found(found, batch))
            weights = presence.weigh(at)
            if terms is not None:
                presence.own_terms.append(terms.detach())
            if at.last:
                presence.report_own_terms()
            return presence.overflow_or(weighted_mean_loss(losses, weights, len(batch["labels"]), terms))

        return engine.forward_as(micro_step, *args, **batch)

    def run_alone(self, batch: dict[str, Any]) -> None:
        """Forward and backward."""
        _, losses, terms = self._losses(self._model.forward, (), self.objective.options | batch)
        weights = torch.ones(len(losses), dtype=torch.float64)
        weighted_mean_loss(losses, weights, len(batch["labels"]), terms).backward()

    def _losses(
        self, forward: Forward, args: tuple[Any, ...], batch: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Per-sample losses, the same to differentiate, [b] each; and the model's own terms, if any.

        They differ only if a sample is not finite: then the forward runs again with such samples replaced. Under
        ZeRO-3, which gathers parameters on all ranks at once, it does so on all ranks if it has to on one.
        """
        losses, terms = self.objective(forward, args, batch)
        finite = losses.detach().isfinite()
        everywhere = finite.all().float()
        if gathers_parameters(self._model):
            dist.all_reduce(everywhere, op=dist.ReduceOp.MIN, group=self._group)
        if everywhere.item():
            return losses.detach(), losses, terms
        return losses.detach(), *self.objective(forward, args, batch, finite.cpu())
