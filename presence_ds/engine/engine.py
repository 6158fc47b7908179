"""The DeepSpeed engine with PRESENCE inside its three calls."""

from functools import partial
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from presence_ds.engine.presence import Presence
from presence_ds.engine.zero import is_managed, restore_partition, set_gradient_divisor

CLIENT_STATE_KEY = "presence"


class PresenceEngine(DeepSpeedEngine):
    """A `deepspeed.DeepSpeedEngine` whose training forward weighs every sample; made by `presence_ds.initialize`.

    Attributes:
        presence: scores, weights and statistics of the step in progress.
    """

    presence: Presence
    _gradient_divisor: float | None

    def attach(self, presence: Presence) -> None:
        """Begin to weigh samples; called once, by `presence_ds.initialize`."""
        self.presence = presence
        self._gradient_divisor = None
        for parameter in self.module.parameters():
            if is_managed(parameter):  # runs after ZeRO's own hook, which has taken the gradient up by then
                parameter.register_post_accumulate_grad_hook(restore_partition)

    def forward(self, *args: Any, source_ids: torch.Tensor | None = None, **batch: Any) -> Any:
        """In training mode, the loss for `backward`; in evaluation mode or without gradients, the plain model's output.

        Args:
            args, batch: what the model takes; in training mode ``labels`` is [b, T] int64, not shifted, −100 ignored.
            source_ids: [b] int64, for the statistics per source.

        Returns:
            A scalar with the value of the weighted mean loss of this rank's micro-batch.
        """
        if not (self.module.training and torch.is_grad_enabled()):
            return super().forward(*args, **batch)
        attributes = self.module.__dict__
        set_by_the_user = attributes.get("forward")
        attributes["forward"] = partial(self._micro_step, self.module.forward, source_ids)
        try:
            return super().forward(*args, **batch)
        finally:
            if set_by_the_user is None:
                del attributes["forward"]
            else:
                attributes["forward"] = set_by_the_user

    def _micro_step(self, inner: Any, source_ids: torch.Tensor | None, *args: Any, **batch: Any) -> torch.Tensor:
        """Stands in for the model's forward, so that DeepSpeed's own forward sees the surrogate loss alone."""
        loss, self._gradient_divisor = self.presence.micro_step(
            inner,
            args,
            batch,
            source_ids,
            step=self.global_steps + 1,
            last=self.is_gradient_accumulation_boundary(),
        )
        return loss

    def step(self, *args: Any, **kwargs: Any) -> None:
        """DeepSpeed's; at the accumulation boundary it divides the gradients by the mean unnormalised weight."""
        divisor = self._gradient_divisor
        if divisor in (None, 1.0):
            return super().step(*args, **kwargs)
        set_gradient_divisor(self.optimizer, divisor)
        try:
            super().step(*args, **kwargs)
        finally:
            set_gradient_divisor(self.optimizer, 1.0)

    def save_checkpoint(  # type: ignore[no-untyped-def]
        self, save_dir, tag=None, client_state=None, *args, **kwargs
    ):
        """DeepSpeed's, with the state of PRESENCE in the client state under "presence"."""
        client_state = {**(client_state or {}), CLIENT_STATE_KEY: self.presence.state_dict()}
        return super().save_checkpoint(save_dir, tag, client_state, *args, **kwargs)

    def load_checkpoint(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """DeepSpeed's; a checkpoint saved without PRESENCE loads too, and its running statistics start anew."""
        path, client_state = super().load_checkpoint(*args, **kwargs)
        state = (client_state or {}).pop(CLIENT_STATE_KEY, None)
        if state is not None:
            self.presence.load_state_dict(state)
        self._gradient_divisor = None
        return path, client_state
