"""`presence_ds.initialize`: `deepspeed.initialize` with PRESENCE."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepspeed
from torch import nn

from presence_ds.engine.checks import check_engine, check_model, check_settings
from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.engine import PresenceEngine
from presence_ds.engine.presence import Presence
from presence_ds.engine.settings import read_settings, try_settings
from presence_ds.engine.trial import try_out
from presence_ds.errors import ConfigError
from presence_ds.versions import check_versions


def initialize(
    *,
    model: nn.Module,
    config: Mapping[str, Any] | str | Path,
    presence: PresenceConfig | Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[PresenceEngine, Any, Any, Any]:
    """Make a DeepSpeed engine that weighs every sample by its self-influence.

    The training loop stays DeepSpeed's: ``loss = engine(**batch); engine.backward(loss); engine.step()``, with
    ``input_ids``, ``labels`` and what else the model takes in ``batch``.

    Args:
        model: a causal or encoder-decoder language model of `transformers`, or any module whose output has ``logits``
            [B, T, V].
        config: DeepSpeed configuration, as a dict or the path of its JSON.
        presence: what to score and how to weigh; None reads the "presence" section of ``config``.
        kwargs: everything else that `deepspeed.initialize` takes.

    Returns:
        engine, optimizer, training data loader and learning-rate scheduler, as `deepspeed.initialize` does.

    Raises:
        ConfigError: a field of ``presence`` or ``config`` cannot be used.
        AttributionError: the model has parameters whose gradient cannot be attributed to samples.
    """
    check_versions()
    settings = dict(config) if isinstance(config, Mapping) else read_settings(Path(config), "config")
    section = settings.pop("presence", {})
    if presence is None:
        presence = section
    if not isinstance(presence, PresenceConfig):
        presence = PresenceConfig.from_mapping(presence)
    presence.validate()
    try_settings(settings)
    check_settings(settings)
    check_model(model, presence)

    engine, optimizer, loader, scheduler = deepspeed.initialize(model=model, config=settings, **kwargs)
    add_presence(engine, presence)
    return engine, optimizer, loader, scheduler


def add_presence(engine: Any, presence: PresenceConfig) -> PresenceEngine:
    """Have an engine that `deepspeed.initialize` has made weigh every sample; it is changed in place and returned.

    `initialize` does it, after `check_settings` and `check_model`; call it where something else makes the engine.

    Args:
        presence: validated.

    Raises:
        ConfigError: the engine or its settings cannot be used with ``presence``.
        AttributionError: as `initialize`.
    """
    check_engine(engine, presence)
    # deepspeed.initialize chooses the engine's class itself; a subclass of that very class adds PRESENCE to its calls.
    if type(engine) is not PresenceEngine.__base__:
        raise ConfigError(
            f"config asks for a {type(engine).__name__}: PRESENCE trains with DeepSpeed's ordinary engine"
        )
    engine.__class__ = PresenceEngine
    engine.attach(Presence(presence, engine))
    try_out(engine, engine.presence.strategy)
    return engine
