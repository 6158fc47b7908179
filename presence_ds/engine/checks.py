"""What strategy one_pass cannot run on, refused before any training step with the field that has to change."""

from collections.abc import Mapping
from typing import Any

from deepspeed import PipelineModule
from torch import nn

from presence_ds.capture import check_attribution
from presence_ds.errors import ConfigError


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for DeepSpeed settings that do not work, before DeepSpeed acts on them."""

    def enabled(section: str) -> bool:
        return bool(settings.get(section, {}).get("enabled", False))

    if settings.get("zero_optimization", {}).get("stage", 0) == 0:
        raise ConfigError("zero_optimization.stage is 0: strategy one_pass works on stages 1, 2 and 3")
    if enabled("fp16"):
        raise ConfigError("fp16.enabled is true: strategy one_pass supports bf16 and float32; use bf16.enabled")
    if enabled("torch_autocast"):
        raise ConfigError("torch_autocast.enabled is true: strategy one_pass supports bf16.enabled or float32 instead")
    if not settings.get("managed_gradient_accumulation", True):
        raise ConfigError("managed_gradient_accumulation is false: strategy one_pass needs DeepSpeed to manage it")


def check_model(model: nn.Module) -> None:
    """Raise `ConfigError` for kinds of models that do not work."""
    if isinstance(model, PipelineModule):
        raise ConfigError("model is a PipelineModule: strategy one_pass works without pipeline parallelism")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ConfigError(
            f"model is an encoder-decoder ({type(model).__name__}): strategy one_pass supports causal language models"
        )
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise ConfigError(
            "model has activation checkpointing enabled: strategy one_pass keeps every activation until the weights "
            "are known; call model.gradient_checkpointing_disable()"
        )


def check_accumulation(engine: Any) -> None:
    """Raise `ConfigError` if the engine's optimizer cannot rescale the gradients that it accumulates."""
    if engine.gradient_accumulation_steps() > 1 and not hasattr(engine.optimizer, "override_loss_scale"):
        raise ConfigError(
            "gradient_accumulation_steps is above 1 with zero_optimization.stage 1, bf16 and "
            "data_types.grad_accum_dtype fp32, whose optimizer cannot rescale accumulated gradients: use stage 2, or "
            "leave grad_accum_dtype unset"
        )


def try_out(engine: Any) -> None:
    """Raise `AttributionError` if, on a few tokens, an instrumented module does not keep samples apart.

    Needs a model that tells the size of its vocabulary through ``get_input_embeddings``; others are not tried out.
    """
    embedding = getattr(engine.module, "get_input_embeddings", lambda: None)()
    vocabulary = getattr(embedding, "num_embeddings", None)
    if vocabulary is None:
        return
    was_training = engine.module.training
    engine.eval()
    check_attribution(engine, engine.presence.instrumented, vocabulary, engine.device)
    engine.train(was_training)
