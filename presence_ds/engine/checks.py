"""What a strategy cannot run on, refused before any training step with the field that has to change."""

from collections.abc import Mapping
from math import inf
from typing import Any

from deepspeed import PipelineModule
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import get_z3_leaf_modules
from torch import nn

from presence_ds.engine.config import PresenceConfig
from presence_ds.engine.zero import can_divide_gradients
from presence_ds.errors import ConfigError

LARGEST_SKETCHES = 1 << 30  # float32 numbers that a rank keeps: 4 GiB


def check_settings(settings: Mapping[str, Any], *, runs_here: bool = True) -> None:
    """Raise `ConfigError` for DeepSpeed settings that do not work, before DeepSpeed acts on them.

    ``runs_here``: whether this machine's accelerator is the one that has to support them.
    """

    def enabled(section: str) -> bool:
        return bool(settings.get(section, {}).get("enabled", False))

    if runs_here and enabled("fp16") and not get_accelerator().is_fp16_supported():
        raise ConfigError(
            f"fp16.enabled is true, and device {get_accelerator().device_name()} does not compute in fp16: use "
            f"bf16.enabled or float32"
        )
    if enabled("fp16") and settings.get("zero_optimization", {}).get("stage", 0) == 0:
        raise ConfigError(
            "fp16.enabled is true with zero_optimization.stage 0, where DeepSpeed divides by a loss scale that it has "
            "not multiplied by: use stage 1, 2 or 3, or bf16.enabled"
        )
    if enabled("hybrid_engine"):
        raise ConfigError("hybrid_engine.enabled is true: PRESENCE trains with DeepSpeed's ordinary engine, disable it")
    for section, name in (("tensor_parallel", "autotp_size"), (None, "sequence_parallel_size")):
        size = (settings if section is None else settings.get(section, {})).get(name, 1)
        if size > 1:
            raise ConfigError(
                f"{name} is {size}, which spreads a sample's gradient over ranks: PRESENCE works with data parallelism "
                f"and ZeRO; use 1"
            )
    if enabled("torch_autocast"):
        raise ConfigError("torch_autocast.enabled is true: use bf16.enabled, fp16.enabled or float32 instead")
    if not settings.get("managed_gradient_accumulation", True):
        raise ConfigError("managed_gradient_accumulation is false: leave it true, DeepSpeed has to manage it")
    _check_mean_over_ranks(settings)


def _check_mean_over_ranks(settings: Mapping[str, Any]) -> None:
    """Gradients must end up as their mean over the ranks; weights are divided by their own mean after that."""
    operation = str(settings.get("gradient_allreduce_op", "mean")).lower()
    if operation != "mean":
        raise ConfigError(
            f'gradient_allreduce_op is "{operation}", which adds gradients up over ranks: the weights of all samples '
            f'sum to 1 only with "mean"'
        )
    factor = settings.get("gradient_predivide_factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0.0 < factor < inf:
        raise ConfigError(f"gradient_predivide_factor is {factor}: it must be a finite number above 0")
    zero = settings.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    scatters = stage >= 2 and zero.get("reduce_scatter", True)
    if settings.get("prescale_gradients", False) and scatters:
        raise ConfigError(
            f"prescale_gradients is true with zero_optimization.stage {stage}, whose reduce-scatter knows none: "
            f"leave it out, or set zero_optimization.reduce_scatter to false"
        )
    # At stage 3 DeepSpeed forgets to multiply by a factor that equals the number of ranks.
    if factor != 1.0 and (scatters or stage == 3):
        remedy = "leave it out" if stage == 3 else "leave it out, or set zero_optimization.reduce_scatter to false"
        raise ConfigError(
            f"gradient_predivide_factor is {factor} with zero_optimization.stage {stage}, which knows none: {remedy}"
        )


def check_model(model: nn.Module, config: PresenceConfig) -> None:
    """Raise `ConfigError` for kinds of models that do not work."""
    if isinstance(model, PipelineModule):
        raise ConfigError("model is a PipelineModule: PRESENCE works without pipeline parallelism")
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise ConfigError(
                f"module {name or 'the model itself'} is compiled by torch.compile, which would pass over the layer "
                f"rules: give the model as it is, and call engine.compile()"
            )
    if config.strategy == "two_pass" or not config.computes_gradients:
        return
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise ConfigError(
            "model has activation checkpointing enabled: strategy one_pass keeps every activation until the weights "
            "are known; use presence.strategy two_pass, or call model.gradient_checkpointing_disable()"
        )


def check_compilable(config: PresenceConfig, zero_stage: int, found: str) -> None:
    """Raise `ConfigError`, which begins with ``found``, if no pass of training can be compiled."""
    if config.strategy == "one_pass" and config.computes_gradients:
        raise ConfigError(
            f"{found} with presence.strategy one_pass, which runs the layer rules in place of the layers: use "
            f"two_pass, whose weighted pass is an ordinary forward, or signal loss without alignment"
        )
    if zero_stage == 3:
        raise ConfigError(
            f"{found} with zero_optimization.stage 3, which gathers parameters before every layer, so that each would "
            f"be compiled by itself and run slower: use stage 0, 1 or 2"
        )


def check_engine(engine: Any, config: PresenceConfig) -> None:
    """Raise `ConfigError` for what only the DeepSpeed engine tells: how its optimizer takes up gradients."""
    if config.strategy == "two_pass":
        return
    leaves = get_z3_leaf_modules(engine.module) if engine.zero_optimization_stage() == 3 else []
    if leaves and config.computes_gradients:
        raise ConfigError(
            f"ZeRO-3 treats modules of type {type(leaves[0]).__name__} as one leaf and reduces their gradients when "
            f"their backward ends, which strategy one_pass postpones: use presence.strategy two_pass"
        )
    if engine.gradient_accumulation_steps() > 1 and not can_divide_gradients(engine):
        raise ConfigError(
            "gradient_accumulation_steps is above 1 with bf16 and data_types.grad_accum_dtype fp32 at "
            "zero_optimization.stage 0 or 1, whose optimizer cannot rescale accumulated gradients: use stage 2, "
            "presence.strategy two_pass, or leave grad_accum_dtype unset"
        )


def check_sketches(
    config: PresenceConfig,
    micro_batch: int,
    accumulation_steps: int,
    gradients: int,
    kept: int,
    *,
    unit: str = "samples",
) -> None:
    """Raise `ConfigError` where alignments take more memory than a rank should give to them.

    Args:
        micro_batch: samples of a rank's micro-step.
        accumulation_steps: micro-steps of an optimizer step.
        gradients: numbers that a sample's sketch is made from, of which there are those of a micro-step at a time.
        kept: numbers in the sketch, which all samples of an optimizer step have.
        unit: what the message calls the samples.
    """
    if micro_batch * gradients > LARGEST_SKETCHES:
        what, remedy = f"estimator is {config.estimator}", "use projected"
        if config.estimator == "projected":
            what, remedy = f"projection_dim is {config.projection_dim}", "lower it"
        instead = "" if config.uses_reference else ", or set presence.alignment false"
        raise ConfigError(
            f"presence.{what} with alignments, which takes {gradients:,} numbers for each of {micro_batch} {unit} at "
            f"a time: {remedy}{instead}"
        )
    most = LARGEST_SKETCHES // (micro_batch * accumulation_steps)
    if config.aligns and kept > most:
        raise ConfigError(
            f"presence.alignment_dim is {config.alignment_dim} with alignments, so that {kept:,} numbers of each of "
            f"{micro_batch * accumulation_steps} {unit} are kept on every rank: it must be at most "
            f"{most:,}, or set presence.alignment false"
        )
