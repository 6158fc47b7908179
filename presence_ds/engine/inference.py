"""A model that scores samples and is not trained: no optimizer, no gradient memory, no weights."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import nn

from presence_ds.engine.batch import DOCUMENTS, number_documents
from presence_ds.engine.checks import check_model, check_sketches
from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.scorer import Found
from presence_ds.engine.strategies import TwoPass
from presence_ds.engine.trial import try_out
from presence_ds.engine.zero import forget_model, forget_release_plan
from presence_ds.errors import ConfigError
from presence_ds.influence import select_parameters


class Inference:
    """Forward and input-gradient sweep, in evaluation mode.

    At ZeRO stage 3 the parameters are partitioned over the ranks and gathered layer by layer, in both directions, by
    the hooks of an engine that `deepspeed.initialize` makes without an optimizer; no device ever has the whole model.
    Below, where only what training adds is partitioned, every rank has it.

    Attributes:
        module: the model.
        device: where it computes.
    """

    def __init__(
        self, model: nn.Module, config: PresenceConfig, settings: Mapping[str, Any], *, micro_batch_size: int
    ) -> None:
        """Put ``model``, in float32 on the host, where it computes, and try it out; what is not scored is frozen.

        Args:
            config: of `scoring_config`.
            settings: DeepSpeed's, of which the ZeRO stage and the precision count.
            micro_batch_size: the most samples of a batch.

        Raises:
            ConfigError: the model cannot be scored, it has nothing of what is to be, or alignments take more memory
                than a rank should give to them.
        """
        check_model(model, config)
        get_accelerator().set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self.device = torch.device(get_accelerator().current_device_name())
        narrow = bool(settings.get("bf16", {}).get("enabled", False))
        zero = dict(settings.get("zero_optimization", {}))
        self._engine: Any = None  # whose hooks gather the parameters
        scored = select_parameters(model, config.layers) if config.computes_gradients else {}
        for parameter in model.parameters():
            parameter.requires_grad_(parameter in scored)  # no layer rule for the others, and no sweep below the scored
            if narrow and parameter.is_floating_point():  # and no buffer, as in training: in bf16 rotary frequencies
                parameter.data = parameter.data.to(torch.bfloat16)  # are other positions
        if zero.get("stage", 0) == 3:
            zero.pop("offload_optimizer", None)
            zero["memory_efficient_linear"] = False  # zero.Init would put its own in the place of PyTorch's, for ever
            own = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, "bf16": {"enabled": narrow}}
            # Moved and partitioned one parameter after another: an engine alone would first move all of the model.
            deepspeed.zero.Init(module=model, config_dict_or_path=own)
            self._engine, *_ = deepspeed.initialize(model=model, config=own)
            for buffer in model.buffers():
                buffer.data = buffer.data.to(self.device)
        else:
            model.to(self.device)
        self.module = model.eval()
        self._config = config
        group = dist.group.WORLD
        self._strategy = TwoPass(self.module, config, group=group, device=self.device)
        self._check_sketches(micro_batch_size)
        try_out(self, self._strategy)
        forget_release_plan()

    def score(self, batch: dict[str, Any]) -> Found:
        """What is known of a batch of any size; at ZeRO stage 3 on every rank at once.

        Args:
            batch: what the model takes, on its device, with ``labels`` ([B, T] int64, −100 ignored); for granularity
                document with ``document_indices`` too, as `PresenceEngine.forward` takes them, on the host.

        Raises:
            ConfigError: alignments of so many documents take more memory than a rank should give to them.
        """
        if self._config.granularity == "document":
            batch = dict(batch)
            indices = batch.pop("document_indices", None), batch.pop("decoder_document_indices", None)
            batch[DOCUMENTS] = number_documents(self.module, *indices, self.device)
            self._check_sketches(batch[DOCUMENTS].count, "documents")
        return self._strategy.score(self.module, (), self._strategy.objective.complete(batch), 1.0)

    def _check_sketches(self, number: int, unit: str = "samples") -> None:
        if self._config.sketches_gradients and (scorer := self._strategy.scorer) is not None:
            check_sketches(self._config, number, 1, scorer.gradient_width, scorer.sketch_width, unit=unit)

    def close(self) -> None:
        """Let go of the model's partitions, before another model is made."""
        if self._engine is not None:
            self._engine.destroy()
            forget_model(self.module)

    def __call__(self, **inputs: Any) -> Any:
        """The model's output."""
        return self.module(**inputs)

    def forward_as(self, substitute: Callable[..., Any], **batch: Any) -> Any:
        """``substitute`` with the model's forward, and ``batch``."""
        return substitute(self.module, **batch)

    def train(self, mode: bool = True) -> None:
        """The model in training mode, or in evaluation mode."""
        self.module.train(mode)

    def eval(self) -> None:
        """The model in evaluation mode."""
        self.module.eval()


def scoring_config(config: PresenceConfig, field: str = "presence") -> PresenceConfig:
    """What ``config``, validated, says of the scores of samples, or documents, without what only makes weights of them.

    Gradients are scored unless the signal is the loss alone; they are sketched where there is a reference.

    Raises:
        ConfigError: scores would depend on the batch that a sample happens to be in.
    """
    if config.signal == "leverage":
        raise ConfigError(
            f"{field}.signal is leverage, self-influence under the curvature of a batch, so that a score would depend "
            f"on the samples beside it: use self_influence, alignment or loss"
        )
    if not config.scores_apart:
        raise ConfigError(
            f"{field}.granularity is {config.granularity}, whose scores depend on the batch: use granularity sample, "
            f"or document"
        )
    gradients = config.signal != "loss" or config.uses_reference
    return PresenceConfig(
        preset="uniform",
        signal="uniform" if gradients else "loss",
        alignment=False,
        alignment_with="reference" if config.uses_reference else "step",
        strategy="two_pass",
        granularity=config.granularity,
        kernels=config.kernels,
        **{name: getattr(config, name) for name in OF_SCORES},
    )


# fields of the section that decide what a score is, beside signal and granularity
OF_SCORES = ("layers", "estimator", "projection_dim", "loss_normalizer", "alignment_dim", "seed")
