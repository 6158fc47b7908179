"""Strategy ``one_pass``: forward, input-gradient sweep, scores, weights, weight-gradient sweep.

An ordinary backward computes input gradients and weight gradients in one sweep. Here the two are taken apart: the first
sweep leaves every layer's input and output gradient, from which each sample's self-influence follows; with the weights
known, the second sweep forms Σ_i w_i g_i. The arithmetic is that of one ordinary step plus the scoring.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.capture import Capture, Instrumentation, check_no_stray_parameters
from presence_ds.engine.weight_gradients import drop_samples, surrogate
from presence_ds.errors import ConfigError
from presence_ds.influence import SelfInfluence, causal_lm_losses


@dataclass(frozen=True)
class Scored:
    """A micro-batch after its input-gradient sweep.

    Attributes:
        losses: [B] float32 nats per token.
        scores: [B] float32 raw self-influence.
        capture: gradient terms of every parameter.
    """

    losses: Tensor
    scores: Tensor
    capture: Capture


class OnePass:
    """Scores a micro-batch, and turns weights into a loss whose backward is the weight-gradient sweep.

    Attributes:
        instrumentation: the layer rules of the model.
    """

    def __init__(self, model: nn.Module, influence: SelfInfluence) -> None:
        self.instrumentation = Instrumentation(model)
        self._influence = influence
        self._checked = False

    def score(self, forward: Callable[..., Any], args: tuple[Any, ...], batch: dict[str, Any]) -> Scored:
        """Run the model and the input-gradient sweep.

        Args:
            forward: the model's own forward; its output has ``logits`` [B, T, V] (or is a tuple that begins with them).
            args: positional arguments of ``forward``.
            batch: keyword arguments of ``forward`` and ``labels`` ([B, T] int64, −100 ignored).
        """
        labels = batch.pop("labels", None)
        if labels is None:
            raise ConfigError("the batch has no labels: in training mode call engine(input_ids=..., labels=...)")
        capture = Capture(labels.shape[0], self.instrumentation.names, labels.device)
        with torch.enable_grad(), self.instrumentation.recording(capture):
            output = forward(*args, **batch)
            logits = output.logits if hasattr(output, "logits") else output[0]
            del output
            losses, gradient = causal_lm_losses(logits, labels)
            if not self._checked:
                check_no_stray_parameters(logits, self.instrumentation.names)
                self._checked = True
            torch.autograd.grad(logits, capture.anchor, gradient, allow_unused=True)
        return Scored(losses, self._influence(capture.terms), capture)

    @staticmethod
    def weighted_loss(scored: Scored, weights: Tensor) -> Tensor:
        """Scalar with the value of the weighted mean loss and the gradient (1/B) Σ_i weights[i] g_i.

        Args:
            weights: [B] float64 on the host; samples of weight 0 take no part, whatever their gradients hold.
        """
        terms, losses = scored.capture.terms, scored.losses
        if not weights.all():
            kept = weights.nonzero().squeeze(1)
            terms, losses, weights = drop_samples(terms, kept.to(losses.device)), losses[kept], weights[kept]
        weights = weights.to(losses.device, losses.dtype, non_blocking=True)
        value = (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        return surrogate(terms, weights / scored.capture.batch_size, value)
