"""What a checkpoint says about its model, so that it can be built again from nothing but the checkpoint."""

from typing import Any

from torch import nn


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
