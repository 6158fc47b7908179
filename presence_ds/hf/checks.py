"""What `PresenceTrainer` cannot do, refused when it is made, with the argument that has to change."""

from typing import Any

import transformers

from presence_ds.engine.checks import check_settings
from presence_ds.errors import ConfigError


def check_trainer(trainer: Any) -> None:
    """Raise `ConfigError` for arguments of a `transformers.Trainer` that PRESENCE cannot train with.

    Args:
        trainer: made, with its accelerator.
    """
    args = trainer.args
    if not trainer.is_deepspeed_enabled:
        raise ConfigError(
            "deepspeed is not set in TrainingArguments: PRESENCE trains under DeepSpeed, give the path of a DeepSpeed "
            "JSON or a dict"
        )
    if type(trainer).compute_loss is not transformers.Trainer.compute_loss or trainer.compute_loss_func is not None:
        raise ConfigError(
            "compute_loss is overridden or compute_loss_func is given: PRESENCE weighs the samples' own cross-entropy, "
            "leave them out (presence.loss_normalizer says what a sample's loss is divided by)"
        )
    if args.label_smoothing_factor:
        raise ConfigError(
            f"label_smoothing_factor is {args.label_smoothing_factor}: PRESENCE weighs plain cross-entropies, use 0"
        )
    if args.torch_compile:
        raise ConfigError("torch_compile is true: compiled code would pass over the layer rules, use false")
    if args.parallelism_config is not None:
        raise ConfigError(
            "parallelism_config is set, which spreads a sample's gradient over ranks: PRESENCE works with data "
            "parallelism and ZeRO, leave it out"
        )
    check_settings(trainer.accelerator.state.deepspeed_plugin.deepspeed_config)
