"""`transformers.Trainer` with PRESENCE inside, changed through its overridable methods alone."""

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import transformers
from deepspeed.accelerator import get_accelerator
from torch.utils.data import DataLoader

from presence_ds.capture import attributes_as
from presence_ds.engine import PresenceConfig, PresenceEngine
from presence_ds.engine.checks import check_model
from presence_ds.engine.initialize import add_presence
from presence_ds.errors import ConfigError
from presence_ds.hf.checks import check_trainer
from presence_ds.reweighting import Worth
from presence_ds.versions import check_versions

logger = logging.getLogger(__name__)


class PresenceTrainer(transformers.Trainer):
    """A `transformers.Trainer` under DeepSpeed whose every sample is weighted by its self-influence.

    Takes what `transformers.Trainer` takes. Evaluation, prediction, saving and resuming are the Trainer's own; its
    checkpoints hold the state of PRESENCE and its configuration: what has changed in that is logged when training goes
    on, or refused where the state cannot go on with it. The logs have the mean loss of the samples, unweighted, under
    ``loss``, and the statistics of the last optimizer step under ``presence/...``. A batch may have ``source_ids`` ([b]
    int64), for statistics per source; the Trainer drops that column unless ``remove_unused_columns`` is false.
    """

    def __init__(self, *args: Any, presence: PresenceConfig | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """``presence`` is as for `presence_ds.initialize`; None reads the "presence" section of the DeepSpeed JSON.

        Its ``schedule.training_steps`` is filled in when training starts.

        Raises:
            ConfigError: an argument or a field cannot be used.
        """
        super().__init__(*args, **kwargs)
        check_versions()
        check_trainer(self)
        if presence is None:
            presence = self.accelerator.state.deepspeed_plugin.deepspeed_config.get("presence", {})
        if not isinstance(presence, PresenceConfig):
            presence = PresenceConfig.from_mapping(presence)
        self._presence_config = presence

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The Trainer's; it calls this once the engine is made and before a checkpoint is loaded into it.

        So here the engine becomes a `PresenceEngine`.

        Raises:
            ConfigError, AttributionError: as `presence_ds.initialize`.
        """
        wrapper = self.accelerator.deepspeed_engine_wrapped
        if wrapper is not None and not isinstance(wrapper.engine, PresenceEngine):
            config = deepcopy(self._presence_config)
            config.fill_training_steps(num_training_steps)
            config.validate()
            check_model(wrapper.engine.module, config)
            add_presence(wrapper.engine, config)
        return super().create_scheduler(num_training_steps, optimizer)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The Trainer's, of full micro-batches: what does not fill the last one is left out of the epoch."""
        with attributes_as(self.args, {"dataloader_drop_last": True}):
            return super().get_train_dataloader()

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Forward, backward and, at the last micro-batch of an optimizer step, step of the engine.

        Args:
            model: the `PresenceEngine`.
            inputs: a full micro-batch with ``labels``.
            num_items_in_batch: not used: a sample's loss is normalised by ``presence.loss_normalizer``.

        Returns:
            At the last micro-batch of an optimizer step the mean loss of all its samples, unweighted, over all ranks
            (NaN if none of them counts), otherwise 0: the Trainer adds them up.
        """
        if not isinstance(model, PresenceEngine):
            raise ConfigError(
                f"transformers {transformers.__version__} does not call create_scheduler between making the engine and "
                f"training, where PresenceTrainer adds PRESENCE to it: use a version that does, such as 5.23"
            )
        if self.is_world_process_zero():
            for change in model.presence.changes:  # found where the Trainer has loaded a checkpoint
                logger.warning("changed since the checkpoint: %s", change)
        model.presence.changes = []
        model.train()
        inputs = self._prepare_inputs(inputs)
        model.set_gradient_accumulation_boundary(self.accelerator.sync_gradients)  # before the forward, not after it
        weighted = model(**inputs)
        every = self.args.torch_empty_cache_steps
        if every is not None and self.state.global_step % every == 0:
            get_accelerator().empty_cache()
        self.accelerator.backward(weighted)
        loss = model.presence.statistics.get("loss", math.nan) if self.accelerator.sync_gradients else 0.0
        return torch.tensor(loss, device=self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's, with the statistics of PRESENCE in the logs of training."""
        if "loss" in logs and isinstance(self.model_wrapped, PresenceEngine):
            presence = self.model_wrapped.presence
            logs |= flatten(presence.statistics) | worth_of(presence.worth)
        super().log(logs, start_time)


def flatten(statistics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of `engine.presence.statistics` under ``presence/NAME`` and ``presence/source/ID/NAME``.

    What is not finite (the loss of a source none of whose samples is) is left out: the Trainer writes its logs to
    trainer_state.json, and JSON has no word for it.
    """
    flat: dict[str, float] = {}
    for name, value in statistics.items():
        if name == "sources":
            for source, figures in value.items():
                flat |= {f"presence/source/{source}/{figure}": number for figure, number in figures.items()}
        elif name != "step" and not isinstance(value, str):
            flat[f"presence/{name}"] = value
    return {name: value for name, value in flat.items() if math.isfinite(value)}


def worth_of(worth: Worth | None) -> dict[str, float]:
    """Gains under ``presence/gain/NAME``, and what sources are worth under ``presence/source/ID/worth``."""
    if worth is None:
        return {}
    flat: dict[str, float] = {}
    for number, source in worth.sources.items():
        flat |= {f"source/{number}/worth": source.ratio, f"source/{number}/worth_error": source.error}
    finite = {name: value for name, value in flat.items() if math.isfinite(value)}
    return {f"presence/{name}": value for name, value in (worth.figures() | finite).items()}
