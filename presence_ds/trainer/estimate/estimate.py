"""From a recipe to what it needs."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from presence_ds.trainer.building.construction import build_empty_model
from presence_ds.trainer.building.device import DTYPES
from presence_ds.trainer.estimate.activations import micro_step_peak
from presence_ds.trainer.estimate.flops import count_flops, empty_batch
from presence_ds.trainer.estimate.states import ModelStates, model_states
from presence_ds.trainer.recipe.plan import Plan, make_plan
from presence_ds.trainer.recipe.recipe import Recipe


@dataclass(frozen=True)
class Estimate:
    """What a recipe needs on ``ranks`` ranks. Memory is in bytes on one rank.

    Attributes:
        plan: what the recipe comes to.
        parameters: elements of the model.
        steps: of the optimizer.
        states: model states by ZeRO stage, 0 to 3.
        activations: most that a micro-step of plain training has beside them; None, like ``presence``, where what a
            model does depends on its numbers (experts).
        presence: most that the recipe's micro-step has beyond that, and the projection matrices; below 0 where the
            recipe's strategy has less.
        model_flops: of plain training, per token; None if it is not counted.
        added_flops: what PRESENCE adds to them.
    """

    plan: Plan
    ranks: int
    parameters: int
    steps: int
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
    batch = empty_batch(lengths, training.micro_batch_size)
    plain = presence = None
    with suppress(RuntimeError):  # of operations that the meta device cannot run
        plain, _ = micro_step_peak(model, None, *batch)
        presence = sum(micro_step_peak(model, recipe.presence, *batch)) - plain
    flops = count_flops(plan.model_config, recipe.model, recipe.presence, lengths, training.micro_batch_size)
    return Estimate(
        plan=plan,
        ranks=ranks,
        parameters=sum(sizes),
        steps=training.steps,
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
        model_flops=flops.training,
        added_flops=flops.scoring,
    )
