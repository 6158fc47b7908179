"""From a recipe to what it needs."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from presence_ds.trainer.building.build import build_empty_model
from presence_ds.trainer.estimate.activations import micro_step_peak
from presence_ds.trainer.estimate.flops import added_flops, count_flops, scoring_flops
from presence_ds.trainer.estimate.states import ModelStates, model_states
from presence_ds.trainer.recipe.plan import make_plan
from presence_ds.trainer.recipe.recipe import Recipe

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Estimate:
    """What a recipe needs on ``ranks`` ranks. Memory is in bytes on one rank.

    Attributes:
        parameters: elements of the model.
        precision: what the model computes in.
        stage: ZeRO stage of the recipe.
        tokens_per_step, steps: of the optimizer, over all ranks, without padding.
        padded: whether samples may have padding, so that there are fewer tokens.
        states: model states by ZeRO stage, 0 to 3.
        activations: most that a micro-step of plain training has beside them; None, like ``presence``, where what a
            model does depends on its numbers (experts).
        presence: most that the recipe's micro-step has beyond that, and the projection matrices; below 0 where the
            recipe's strategy has less.
        model_flops: of plain training, per token; None if it is not counted.
        added_flops: what PRESENCE adds to them; None, too, for encoder-decoder models.
    """

    ranks: int
    parameters: int
    precision: str
    stage: int
    tokens_per_step: int
    steps: int
    padded: bool
    states: list[ModelStates]
    activations: int | None
    presence: int | None
    model_flops: float | None
    added_flops: float | None

    def total(self, stage: int) -> float:
        """All memory of one rank's device at ZeRO ``stage``."""
        return self.states[stage].device + (self.activations or 0) + (self.presence or 0)


def estimate(recipe: Recipe, recipe_file: Path | None, ranks: int) -> Estimate:
    """Estimate what ``recipe`` needs on ``ranks`` ranks whose hardware computes in bf16, none of it on this machine.

    A vocabulary that is still to be trained is taken to become as large as it may.

    Raises:
        ConfigError: the first value of the recipe that cannot be used.
    """
    plan = make_plan(recipe, recipe_file, world_size=ranks, bf16_hardware=True, runs_here=False)
    dtype = DTYPES[plan.precision]
    model = build_empty_model(plan.model_config, recipe.model, dtype)
    training, lengths = recipe.training, plan.lengths
    sizes = [parameter.numel() for parameter in model.parameters()]
    inputs, labels = (
        torch.empty(training.micro_batch_size, length, dtype=torch.int64, device="meta")
        for length in (lengths.inputs, lengths.targets)
    )
    plain = presence = None
    with suppress(RuntimeError):  # of operations that the meta device cannot run
        plain, _ = micro_step_peak(model, None, inputs, labels)
        presence = sum(micro_step_peak(model, recipe.presence, inputs, labels)) - plain
    flops = count_flops(model, plan.model_config, lengths)
    added = None
    if flops is not None and not plan.model_config.is_encoder_decoder:
        samples = 1 if recipe.presence.granularity == "sample" else training.micro_batch_size
        positions = lengths.inputs * samples
        scoring = scoring_flops(model, recipe.presence, positions)
        added = added_flops(flops, recipe.presence, scoring, checkpointing=recipe.model.activation_checkpointing)
    return Estimate(
        ranks=ranks,
        parameters=sum(sizes),
        precision=plan.precision,
        stage=plan.zero_stage,
        tokens_per_step=plan.tokens_per_step,
        steps=training.steps,
        padded=plan.padded,
        states=[
            model_states(
                sizes,
                plan.deepspeed["zero_optimization"],
                stage,
                ranks=ranks,
                bytes_per_element=dtype.itemsize,
                moments=recipe.optimizer.moments(),
                accumulation_steps=plan.deepspeed["gradient_accumulation_steps"],
            )
            for stage in range(4)
        ],
        activations=plain,
        presence=presence,
        model_flops=None if flops is None else flops.model,
        added_flops=added,
    )
