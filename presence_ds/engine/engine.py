"""The DeepSpeed engine with PRESENCE inside its three calls."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch import nn

from presence_ds.capture import attributes_as
from presence_ds.engine.batch import DOCUMENTS, number_documents
from presence_ds.engine.checks import check_compilable
from presence_ds.engine.presence import Presence
from presence_ds.engine.separation import check_separation
from presence_ds.engine.strategies import MicroStep
from presence_ds.engine.zero import (
    can_divide_gradients,
    dividing_gradients,
    forget_release_plan,
    is_managed,
    loss_scale,
    loss_scale_exhausted_is_nonfinite,
    restore_partition,
    smallest_loss_scale,
)
from presence_ds.errors import ConfigError, NonFiniteError

CLIENT_STATE_KEY = "presence"
MODEL_KEY = "model"


class PresenceEngine(DeepSpeedEngine):
    """A `deepspeed.DeepSpeedEngine` whose training forward weighs every sample; made by `presence_ds.initialize`.

    Attributes:
        presence: scores, weights and statistics of the step in progress.
        separation_checked: whether the trial of the model keeping the documents of a row apart is done.
    """

    presence: Presence
    separation_checked: bool
    _micro_steps: int  # so far in the optimizer step in progress
    _stated_boundary: bool | None
    _documents_counted: bool  # in the first batch that has any

    def attach(self, presence: Presence) -> None:
        """Begin to weigh samples; called once, by `presence_ds.initialize`."""
        self.presence = presence
        self._stated_boundary = None
        self.separation_checked = self._documents_counted = False
        self._reset_step()
        for parameter in self.module.parameters():
            if is_managed(parameter):  # runs after ZeRO's own hook, which has taken the gradient up by then
                parameter.register_post_accumulate_grad_hook(restore_partition)

    def forward(
        self,
        *args: Any,
        source_ids: torch.Tensor | None = None,
        document_indices: torch.Tensor | None = None,
        decoder_document_indices: torch.Tensor | None = None,
        **batch: Any,
    ) -> Any:
        """In training mode, the loss for `backward`; in evaluation mode or without gradients, the plain model's output.

        Args:
            args, batch: what the model takes; in training mode ``labels`` is [b, T] int64, −100 ignored: for a causal
                model not shifted, for an encoder-decoder model the decoder's targets.
            source_ids: [b] int64, for the statistics per source.
            document_indices: [b, T] int64, which document of its row every position is of, from 0 on, and −1 at
                padding; for granularity document, and otherwise not looked at. The model has to keep the documents of a
                row apart, by its mask and positions.
            decoder_document_indices: the same of the decoder's positions.

        Returns:
            A scalar with the value of the weighted mean loss of this rank's micro-batch (two_pass: unweighted, but for
            the last micro-batch of an optimizer step).
        """
        if not (self.module.training and torch.is_grad_enabled()):
            return super().forward(*args, **batch)
        if self._micro_steps == 0:
            self.presence.begin_step()
        if self.presence.by_document:
            indices = document_indices, decoder_document_indices
            batch[DOCUMENTS] = number_documents(self.module, *indices, self.device)
            self._check_documents(batch)
        try:
            loss = self.presence.strategy.forward(self, args, batch, source_ids)
        except NonFiniteError:  # of all the step's samples: it is over, and none of them has left a gradient
            self._reset_step()
            raise
        self._micro_steps += 1
        return loss

    def micro_step(self) -> MicroStep:
        """The micro-step whose forward comes next."""
        scale = loss_scale(self)
        return MicroStep(
            step=self.global_steps + 1,
            last=self.is_gradient_accumulation_boundary(),
            scale=scale,
            may_overflow=scale > smallest_loss_scale(self),
        )

    def observe_reference(
        self,
        *args: Any,
        document_indices: torch.Tensor | None = None,
        decoder_document_indices: torch.Tensor | None = None,
        **batch: Any,
    ) -> None:
        """Take in a batch of the trusted stream that samples are compared with, on every rank alike.

        Call it before the first optimizer step and between steps, as often as the reference shall follow the model.
        """
        if self.presence.by_document:
            indices = document_indices, decoder_document_indices
            batch[DOCUMENTS] = number_documents(self.module, *indices, self.device)
        if not self.module.training:
            raise ConfigError("engine.observe_reference is called in evaluation mode: call engine.train() first")

        def observe(inner: Callable[..., Any], *args: Any, **batch: Any) -> torch.Tensor:
            self.presence.observe_reference(inner, args, batch, loss_scale(self))
            return torch.zeros((), device=self.device)

        self.forward_as(observe, *args, **batch)

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """DeepSpeed's; with two_pass, the weighted passes of all micro-batches after the step's last one.

        Raises:
            ConfigError: with two_pass, ``loss`` is not the one that the engine's forward returned.
        """
        backward = super().backward
        return self.presence.strategy.backward(self, loss, lambda own: backward(own, *args, **kwargs))

    def train(self, mode: bool = True) -> None:
        """DeepSpeed's; what ZeRO-3 learned from forwards of evaluation alone is not applied to training."""
        if mode and not self.module.training:
            forget_release_plan()
        super().train(mode)

    def set_gradient_accumulation_boundary(self, is_boundary: bool | None) -> None:
        """DeepSpeed's; to be called before the forward, which weighs the micro-batches at the optimizer step's last."""
        self._stated_boundary = is_boundary
        super().set_gradient_accumulation_boundary(is_boundary)

    def step(self, *args: Any, **kwargs: Any) -> None:
        """DeepSpeed's; at the accumulation boundary it divides the gradients by the mean unnormalised weight.

        A step in which no sample has targets updates nothing: `was_step_applied` is then false.

        Raises:
            ConfigError: the boundary was stated after fewer micro-steps than gradient_accumulation_steps, and the
                engine's optimizer cannot make up for it.
            NonFiniteError: with fp16, on every rank alike, the gradient overflows at the smallest loss scale.
        """
        if not self.is_gradient_accumulation_boundary():
            return super().step(*args, **kwargs)
        self.presence.settle()  # the device has the backward to compute
        if self.presence.is_empty:
            return self._pass_over_step(*args, **kwargs)
        divisor = self.presence.divisor
        planned = self.gradient_accumulation_steps()
        if self._micro_steps != planned:  # each loss was divided by the planned number
            if not can_divide_gradients(self):
                raise ConfigError(
                    f"the optimizer step has {self._micro_steps} micro-steps, gradient_accumulation_steps is {planned} "
                    f"and {type(self.optimizer).__name__} cannot rescale gradients: give every step {planned}"
                )
            divisor *= self._micro_steps / planned
        with dividing_gradients(self, divisor), loss_scale_exhausted_is_nonfinite():
            super().step(*args, **kwargs)
        if not self.was_step_applied():
            self.presence.undo_step()
        self._reset_step()

    def compile(self, backend: str = "inductor", compile_kwargs: Mapping[str, Any] | None = None) -> None:
        """Run the passes of training that are ordinary forwards through `torch.compile`: call it before training.

        These are the weighted passes of strategy two_pass, and every pass where no gradients are computed. Scoring runs
        the layer rules in place of the layers, and evaluation the model, as they are.

        Args:
            backend: of `torch.compile`.
            compile_kwargs: its other arguments.

        Raises:
            ConfigError: there is no ordinary forward, or ZeRO-3 gathers parameters inside of it.
        """
        check_compilable(self.presence.config, self.zero_optimization_stage(), "engine.compile is called")
        self.presence.strategy.compile(backend, compile_kwargs or {})

    def save_checkpoint(  # type: ignore[no-untyped-def]
        self, save_dir, tag=None, client_state=None, *args, **kwargs
    ):
        """DeepSpeed's; the client state also holds the state of PRESENCE and what kind of model it is."""
        client_state = {
            **(client_state or {}),
            CLIENT_STATE_KEY: self.presence.state_dict(),
            MODEL_KEY: describe_model(self.module),
        }
        return super().save_checkpoint(save_dir, tag, client_state, *args, **kwargs)

    def load_checkpoint(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        """DeepSpeed's; a checkpoint saved without PRESENCE loads too, and its running statistics start anew."""
        path, client_state = super().load_checkpoint(*args, **kwargs)
        state = (client_state or {}).pop(CLIENT_STATE_KEY, None)
        (client_state or {}).pop(MODEL_KEY, None)
        if state is not None:
            self.presence.load_state_dict(state)
        self._reset_step()
        return path, client_state

    @contextmanager
    def boundary(self, is_boundary: bool | None) -> Iterator[None]:
        """Inside, DeepSpeed takes a micro-step for an optimizer step's last one or not, whatever was stated."""
        super().set_gradient_accumulation_boundary(is_boundary)
        try:
            yield
        finally:
            super().set_gradient_accumulation_boundary(self._stated_boundary)

    def forward_as(self, substitute: Callable[..., Any], *args: Any, **batch: Any) -> Any:
        """DeepSpeed's forward with ``substitute(model's forward, ...)`` in the place of the model's forward.

        So DeepSpeed's own bookkeeping runs around it and sees nothing but the loss that it returns.
        """
        with attributes_as(self.module, {"forward": partial(substitute, self.module.forward)}):
            return super().forward(*args, **batch)

    def _check_documents(self, batch: dict[str, Any]) -> None:
        """Raise `ConfigError`, on all ranks, if the first batch has too many documents, or they see each other.

        Whether they do is told by the first that has a row of several.
        """
        if not self._documents_counted:
            count = torch.tensor(batch[DOCUMENTS].count, device=self.device)
            dist.all_reduce(count, dist.ReduceOp.MAX, group=self.data_parallel_group)
            self.presence.check_memory(int(count), "documents")
            self._documents_counted = True
        if not self.separation_checked:
            field = "presence.granularity is document"
            self.separation_checked = check_separation(self, batch, field, self.data_parallel_group)

    def _pass_over_step(self, *args: Any, **kwargs: Any) -> None:
        """Count an optimizer step that has nothing to learn from, and update nothing.

        To DeepSpeed it is one more accumulation step. What it accumulates is exactly 0.
        """
        with self.boundary(False):
            super().step(*args, **kwargs)
        self.global_steps += 1
        self.skipped_steps += 1
        self.global_samples += self.train_batch_size()
        self._reset_step()

    def _reset_step(self) -> None:
        self._micro_steps = 0
        self.presence.strategy.forget_step()


def describe_model(model: nn.Module) -> dict[str, str]:
    """A model of `transformers` in words.

    Returns:
        ``class``, its name; ``config``, JSON with every field; ``generation_config``, JSON, where it has one. Empty for
        any other module.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_json_string"):
        return {}
    described = {"class": type(model).__name__, "config": config.to_json_string(use_diff=False)}
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        described["generation_config"] = generation.to_json_string()
    return described
