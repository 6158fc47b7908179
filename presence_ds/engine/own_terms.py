"""The terms that a model adds to the cross-entropy of its logits, such as those that balance the load of its experts.

They belong to no single sample. So they are trained as the model defines them, with the coefficients of its
configuration, unweighted, and they do not enter the scores. What is known of them is what the model's own ``loss`` has
beyond the cross-entropy, which is taken out of it: no list of models or of coefficients is needed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presence_ds.engine.batch import logits_of, takes
from presence_ds.errors import ConfigError
from presence_ds.influence import SampleLoss

ON_REQUEST = "output_router_logits"  # an argument of forwards that adds such terms, and a field of configurations


class OwnTerms:
    """Runs a model so that its own terms come apart.

    Attributes:
        found: whether it has any whatever the batch says; `look_for` tells.
        options: arguments of the model's forward for the terms that its configuration asks for.
    """

    def __init__(self, model: nn.Module, *, shifted: bool) -> None:
        """``shifted``: as in `SampleLoss`."""
        self.found = False
        self.options: dict[str, Any] = {}
        if getattr(getattr(model, "config", None), ON_REQUEST, False) and takes(model, ON_REQUEST):
            self.options[ON_REQUEST] = True  # some forwards look at the argument alone
        self._model = model
        self._shifted = shifted
        self._loss_function: _LossFunction | None = None

    def are_in(self, batch: Mapping[str, Any]) -> bool:
        """Whether the model's loss on ``batch`` has terms of its own."""
        return self.found or bool(batch.get(ON_REQUEST, False))

    def forward(
        self, forward: Callable[..., Any], args: tuple[Any, ...], inputs: dict[str, Any], labels: Tensor
    ) -> tuple[Any, Tensor | None]:
        """The model's output, and the sum of its own terms (0-dimensional, differentiable); None if it has none.

        Raises:
            ConfigError: the output shows terms that nothing tells how to train, or has no logits beside a loss.
        """
        name = type(self._model).__name__
        if not self.are_in(inputs):
            output = forward(*args, **inputs)
            if shown := _shown(output):
                raise ConfigError(_UNTOLD.format(name, shown[0]))
            return output, None
        labels = labels.clamp(min=0)  # any targets do: what they add is taken out, and without one it would be NaN
        with self._cross_entropy_aside() as function:
            output = forward(*args, **inputs, labels=labels)
        if getattr(output, "logits", None) is None:
            raise ConfigError(
                f"model {name} adds terms to its cross-entropy and gives no logits when it is given labels: switch the "
                f"fused loss off"
            )
        if function is not None and function.was_called:
            return output, output.loss
        return output, output.loss - self._cross_entropy(output.logits.to(output.loss.dtype), labels)

    @torch.no_grad()
    def look_for(self, run: Callable[..., Any], inputs: dict[str, Tensor]) -> None:
        """Compare the model's own loss with the cross-entropy of its logits, on two sets of labels.

        Args:
            run: runs the model; the same arguments give the same output.
            inputs: token ids, those of a decoder too.

        Raises:
            ConfigError: the model's own loss is another one, or nothing tells how a term counts.
        """
        plain = run(**inputs)
        logits = logits_of(plain)
        name = type(self._model).__name__
        if not takes(self._model, "labels"):
            if shown := _shown(plain):
                raise ConfigError(_UNTOLD.format(name, shown[0]))
            return
        if logits.shape[:2] != next(iter(inputs.values())).shape:
            return  # positions of its own, which labels would have to know of
        rests, noise = [], 0.0
        for picked in (logits.argmax(-1), logits.argmin(-1)):
            labels = picked if self._shifted else F.pad(picked[:, :-1], (1, 0))
            output = run(**inputs, labels=labels)
            own = getattr(output, "loss", None)
            if not isinstance(own, Tensor) or own.dim() != 0:
                return
            expected = SampleLoss(shifted=self._shifted)(logits, labels).mean()
            rests.append((own - expected).item())
            noise = max(noise, max(1e-5, 4 * torch.finfo(own.dtype).eps) * (1.0 + expected.abs().item()))
        if abs(rests[0] - rests[1]) > noise:
            which = "the labels" if self._shifted else "the labels one position further on"
            raise ConfigError(
                f"model {name}: its own loss is not the mean cross-entropy of its logits with {which} and terms that "
                f"do not depend on labels (beside it there is {rests[0]:.3g} or {rests[1]:.3g}, by the labels), and "
                f"nothing else can be weighted: leave its loss_function and the options of its loss as they are"
            )
        self.found = abs(rests[0]) > noise or bool(_shown(output))

    @contextmanager
    def _cross_entropy_aside(self) -> Iterator["_LossFunction | None"]:
        """Inside, a model that calls its ``loss_function`` gets 0 from it; None for one that has none."""
        owner: Any = getattr(self._model, "get_base_model", lambda: self._model)()  # of an adapted model
        if self._loss_function is None and hasattr(type(owner), "loss_function"):
            owner.loss_function = self._loss_function = _LossFunction(owner.loss_function)
        if self._loss_function is None:
            yield None
            return
        with self._loss_function.aside():
            yield self._loss_function

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not self._shifted:
            logits, labels = logits[:, :-1], labels[:, 1:]
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


class _LossFunction:
    """A model's loss function that can be set aside: it then gives 0, and the model's loss is what it adds to that."""

    def __init__(self, original: Callable[..., Tensor]) -> None:
        self._original = original
        self.was_called = False  # while it was set aside
        self._aside = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        if not self._aside:
            return self._original(*args, **kwargs)
        self.was_called = True
        logits: Tensor = kwargs["logits"] if "logits" in kwargs else args[0]
        return torch.zeros((), device=logits.device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, it gives 0."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False


_UNTOLD = (
    "the output of {0} has {1}, and nothing tells how it is trained: let forward take labels and have it in its loss, "
    "or leave it out"
)


def _shown(output: Any) -> list[str]:
    """Names of the output's fields that hold such terms."""
    fields = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    return [
        name for name, value in fields.items() if name.endswith(("aux_loss", "z_loss")) and isinstance(value, Tensor)
    ]
