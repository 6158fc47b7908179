"""What is shown of a run once, before its first step."""

from typing import Any

from deepspeed.accelerator import get_accelerator

from presence_ds.capture import full_shape
from presence_ds.engine import PresenceConfig
from presence_ds.reweighting import ScheduleConfig, TemperatureSchedule
from presence_ds.trainer.recipe.plan import Plan
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.trainer import Trainer


def setup_facts(recipe: Recipe, plan: Plan, trainer: Trainer, directory: RunDirectory) -> dict[str, Any]:
    """What is shown once before the first step."""
    engine, config = trainer.engine, plan.model_config
    parameters = {name: full_shape(parameter).numel() for name, parameter in engine.module.named_parameters()}
    signal = recipe.presence.signal
    left_out = [name for name in parameters if name not in engine.presence.scored]
    return {
        "run directory": directory.path,
        "resolved recipe": directory.recipe,
        "model": f"{config.model_type}, {sum(parameters.values()):,} parameters, {engine.module.dtype}",
        "attention": engine.module.config._attn_implementation,
        "compiled": recipe.model.compile_backend or "no",
        "tokens per step": ("at most " if plan.padded else "") + f"{trainer.tokens_per_step:,} "
        f"({recipe.training.micro_batch_size} samples x {engine.gradient_accumulation_steps()} micro-steps x "
        f"{trainer.ranks.world_size} ranks)",
        "steps": f"{trainer.step} done of {trainer.total_steps}",
        "DeepSpeed": f"ZeRO-{plan.zero_stage} on {get_accelerator().device_name()}",
        "optimizer": f"{type(engine.basic_optimizer).__name__}, lr {recipe.optimizer.lr:g}, {recipe.lr_schedule.kind}",
        "strategy": f"{recipe.presence.strategy}, {signal}, {recipe.presence.estimator} estimator",
        "weights": describe_weights(recipe.presence),
        "left out of SI": "all" if signal == "loss" else summarize(left_out, len(parameters)),
    }


def describe_weights(config: PresenceConfig) -> str:
    """The weight function and its τ over the run, in one line."""
    kind, placebo = config.weighting_kind, ", permuted (placebo)" if config.weighting.placebo else ""
    if "uniform" in (config.signal, kind):
        return "uniform"
    if kind == "clip":
        return f"clip at quantile {config.weighting.quantile:g} of the self-influences" + placebo
    if kind == "normalized":
        return "every gradient at the same norm" + placebo
    if kind == "calibrated":
        *others, last = config.weighting.features
        return f"calibrated on {' and '.join(filter(None, [', '.join(others), last]))}" + placebo
    return f"{kind} of the {config.normalizer}, {describe_temperature(config.schedule)}" + placebo


def describe_temperature(config: ScheduleConfig) -> str:
    """τ over the run in a few words."""
    ends = f"τ {config.tau_direct:g}", f"τ {config.tau_inverse:g}"
    if config.kind == "constant":
        return f"{ends[0]} throughout"
    if config.kind in ("linear", "cosine"):
        return f"{ends[0]} to {ends[1]}, {config.kind}"
    if config.kind == "auto":
        return f"{ends[0]}, then {ends[1]} when the loss is slow to fall"
    return f"{ends[0]} to step {TemperatureSchedule(config).switch_step}, then {ends[1]}"


def summarize(names: list[str], total: int) -> str:
    """A list of parameter names in one line."""
    if not names:
        return f"nothing ({total} parameters scored)"
    shown, rest = names[:4], names[4:]
    return ", ".join(shown) + (f" and {len(rest)} more of {total} parameters" if rest else "")
