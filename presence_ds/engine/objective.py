"""What a model is trained on: the losses of its samples, weighted, and terms of its own that belong to none of them.

A model adds such terms to the cross-entropy of its logits to balance the load of its experts, for one. They are trained
as the model defines them, with the coefficients of its configuration, unweighted, and they do not enter the scores.
What is known of them is what the model's own ``loss`` has beyond the cross-entropy, which is taken out of it: no list
of models or of coefficients is needed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presence_ds.engine.batch import DOCUMENTS, logits_of, replace_samples, take_labels, takes, without_cache
from presence_ds.engine.scorer import Found
from presence_ds.errors import ConfigError
from presence_ds.influence import SampleLoss
from presence_ds.transfers import to_device

ON_REQUEST = "output_router_logits"  # an argument of forwards that adds own terms, and a field of configurations


class Objective:
    """Runs a model so that the losses of its samples and its own terms come apart.

    Attributes:
        loss: of a sample.
        adds_terms: whether the model has own terms whatever the batch says; `look_for_terms` tells.
        options: arguments of the model's forward in training, for the terms that its configuration asks for among them.
    """

    def __init__(self, model: nn.Module, loss: SampleLoss, *, trains_terms: bool = True) -> None:
        """``trains_terms``: whether the strategy can train the model's own terms."""
        self.loss = loss
        self.adds_terms = False
        self.options = without_cache(model)  # the model's configuration stays as it is
        if getattr(getattr(model, "config", None), ON_REQUEST, False) and takes(model, ON_REQUEST):
            self.options[ON_REQUEST] = True  # some forwards look at the argument alone
        self._model = model
        self._trains_terms = trains_terms
        self._set_aside = False  # whether the model has called `_no_cross_entropy`

    def __call__(
        self,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        batch: dict[str, Any],
        finite: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Losses of a micro-batch, [B] or by document, and the sum of the model's own terms, if any; differentiable.

        Args:
            forward, args, batch: the model's own forward and what it takes, with ``labels``.
            finite: [B] (or [P]) bool on the host; others are replaced, for a weight of 0.

        Raises:
            ConfigError: the output shows terms that nothing tells how to train, or has no logits beside a loss.
        """
        if finite is not None and not finite.all():
            args, batch = replace_samples(args, batch, finite)
        inputs, labels, documents = take_labels(self._model, batch)
        terms = None
        if self._adds_terms_to(inputs):
            output, terms = self._with_terms(forward, args, inputs, labels)
        else:
            output = forward(*args, **inputs)
            self._check_told(output)
        return self.loss(logits_of(output), labels, documents), terms

    def found(self, losses: Tensor, batch: dict[str, Any]) -> Found:
        """What is known of the samples of ``batch`` from their ``losses`` alone."""
        documents = batch.get(DOCUMENTS)
        return Found(losses=losses, targets=self.loss.num_targets(batch["labels"], documents), documents=documents)

    def complete(self, batch: dict[str, Any]) -> dict[str, Any]:
        """``batch`` with `options`.

        Raises:
            ConfigError: the model's loss on it has terms of its own that the strategy cannot train.
        """
        batch = self.options | batch
        if self._adds_terms_to(batch) and not self._trains_terms:
            raise ConfigError(
                f"model {type(self._model).__name__} adds terms of its own to the cross-entropy, such as one that "
                f"balances its experts, and strategy one_pass cannot train them beside weights: use presence.strategy "
                f"two_pass, or leave them out of its configuration (output_router_logits)"
            )
        return batch

    @torch.no_grad()
    def look_for_terms(self, run: Callable[..., Any], inputs: dict[str, Tensor]) -> None:
        """Compare the model's own loss with the cross-entropy of its logits, on two sets of labels.

        Args:
            run: runs the model; the same arguments give the same output.
            inputs: token ids, those of a decoder too.

        Raises:
            ConfigError: the model's own loss is another one, nothing tells how a term counts, or the strategy cannot
                train one.
        """
        plain = run(**inputs, **self.options)
        logits = logits_of(plain)
        if not takes(self._model, "labels"):
            return self._check_told(plain)
        if logits.shape[:2] != next(iter(inputs.values())).shape:
            return  # positions of its own, which labels would have to know of
        rests, noise = [], 0.0
        for picked in (logits.argmax(-1), logits.argmin(-1)):
            labels = picked if self.loss.shifted else F.pad(picked[:, :-1], (1, 0))
            output = run(**inputs, **self.options, labels=labels)
            own = getattr(output, "loss", None)
            if not isinstance(own, Tensor) or own.dim() != 0:
                return
            expected = replace(self.loss, normalizer="token_mean")(logits, labels).mean()
            rests.append((own - expected).item())
            noise = max(noise, max(1e-5, 4 * torch.finfo(own.dtype).eps) * (1.0 + expected.abs().item()))
        if abs(rests[0] - rests[1]) > noise:
            which = "the labels" if self.loss.shifted else "the labels one position further on"
            raise ConfigError(
                f"model {type(self._model).__name__}: its own loss is not the mean cross-entropy of its logits with "
                f"{which} and terms that do not depend on labels (beside it there is {rests[0]:.3g} or {rests[1]:.3g}, "
                f"by the labels), and nothing else can be weighted: leave its loss_function and the options of its "
                f"loss as they are"
            )
        self.adds_terms = abs(rests[0]) > noise or bool(_shown_terms(output))
        self.complete({})

    def _with_terms(
        self, forward: Callable[..., Any], args: tuple[Any, ...], inputs: dict[str, Any], labels: Tensor
    ) -> tuple[Any, Tensor]:
        """The model's output, and the sum of its own terms (0-dimensional, differentiable)."""
        labels = labels.clamp(min=0)  # any targets do: what they add is taken out, and without one it would be NaN
        with self._cross_entropy_aside():
            output = forward(*args, **inputs, labels=labels)
        if getattr(output, "logits", None) is None:
            raise ConfigError(
                f"model {type(self._model).__name__} adds terms to its cross-entropy and gives no logits when it is "
                f"given labels: switch the fused loss off"
            )
        if self._set_aside:
            return output, output.loss
        logits = output.logits.to(output.loss.dtype)
        if not self.loss.shifted:
            logits, labels = logits[:, :-1], labels[:, 1:]
        return output, output.loss - F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    @contextmanager
    def _cross_entropy_aside(self) -> Iterator[None]:
        """Inside, a model that calls its ``loss_function`` gets 0 from it, so that its loss is what it adds to that."""
        owner: Any = getattr(self._model, "get_base_model", lambda: self._model)()  # of an adapted model
        if not hasattr(type(owner), "loss_function"):
            yield
            return
        original, owner.loss_function = owner.loss_function, self._no_cross_entropy
        try:
            yield
        finally:
            owner.loss_function = original

    def _no_cross_entropy(self, *args: Any, **kwargs: Any) -> Tensor:
        self._set_aside = True
        logits: Tensor = kwargs["logits"] if "logits" in kwargs else args[0]
        return torch.zeros((), device=logits.device)

    def _adds_terms_to(self, batch: Mapping[str, Any]) -> bool:
        return self.adds_terms or bool(batch.get(ON_REQUEST, False))

    def _check_told(self, output: Any) -> None:
        if shown := _shown_terms(output):
            raise ConfigError(
                f"the output of {type(self._model).__name__} has {shown[0]}, and nothing tells how it is trained: let "
                f"forward take labels and have it in its loss, or leave it out"
            )


def weighted_mean_loss(losses: Tensor, weights: Tensor, rows: int, terms: Tensor | None = None) -> Tensor:
    """Scalar with the value of the weighted mean loss and the gradient (1/rows) Σ_i weights[i] ∇ losses[i].

    Args:
        losses: [B], or of documents, differentiable.
        weights: as many, float64 on the host; 0 for samples that were replaced.
        rows: B.
        terms: 0-dimensional; its gradient is added, unweighted, and its value is not.
    """
    weights = to_device(weights, losses.device, losses.dtype)
    surrogate = (weights * losses).sum() / rows
    value = mean_loss(losses, weights)
    if terms is not None:
        surrogate = surrogate + terms
    return surrogate + (value - surrogate.detach())


def mean_loss(losses: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i ℓ_i / Σ_i w_i without gradient, over the samples whose weight is not 0; 0 if there are none."""
    losses = torch.where(weights == 0, 0.0, losses.detach())
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def _shown_terms(output: Any) -> list[str]:
    """Names of the output's fields that hold a model's own terms."""
    fields = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    return [
        name for name, value in fields.items() if name.endswith(("aux_loss", "z_loss")) and isinstance(value, Tensor)
    ]
