"""From a recipe and a number of ranks to what the run needs, with every check that needs no run directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepspeed.accelerator import get_accelerator
from transformers import PretrainedConfig

from presence_ds.data import Lengths, fill_from_prepared
from presence_ds.engine.checks import check_compilable, check_settings
from presence_ds.engine.settings import try_settings
from presence_ds.errors import ConfigError
from presence_ds.trainer.building.architecture import check_objective, load_model_config
from presence_ds.trainer.building.construction import check_attention, try_to_build
from presence_ds.trainer.building.document_mask import check_takes_positions
from presence_ds.trainer.building.optimizer_config import KINDS
from presence_ds.trainer.building.own_tokenizer import known_tokenizer, other_tokens
from presence_ds.trainer.building.positions import check_positions, check_sequence_length
from presence_ds.trainer.building.pretrained import check_weights
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary
from presence_ds.trainer.recipe.deepspeed import merge_deepspeed_config, read_deepspeed_json
from presence_ds.trainer.recipe.recipe import Recipe, find_beside_recipe


@dataclass(frozen=True)
class Plan:
    """What a validated recipe comes to on ``world_size`` ranks.

    Attributes:
        deepspeed: the dict for ``presence_ds.initialize``.
        model_config: the model's configuration, fitted to the tokenizer, or to the largest that may be trained.
        lengths: tokens of a sample.
        precision: what the model computes in: bf16, fp16 or fp32.
        padded: whether samples may have padding.
        warnings: what may be meant otherwise, a line each.
    """

    deepspeed: dict[str, Any]
    model_config: PretrainedConfig
    lengths: Lengths
    precision: str
    padded: bool
    warnings: tuple[str, ...] = ()

    @property
    def tokens_per_step(self) -> int:
        """Tokens of text in one optimizer step without padding, which is the most there are."""
        return int(self.deepspeed["train_batch_size"]) * self.lengths.row

    def text_tokens(self, targets: int) -> int:
        """Tokens of text in an optimizer step with so many targets over all ranks; padding is none.

        A causal model's samples begin with a token that is no target. Those of span corruption have no padding, and
        each token of text is in the inputs or in the targets, where sentinels and EOS come to it.
        """
        if self.model_config.is_encoder_decoder:
            return self.tokens_per_step
        return targets + int(self.deepspeed["train_batch_size"])

    @property
    def zero_stage(self) -> int:
        """ZeRO stage, 0 to 3."""
        return int(self.deepspeed["zero_optimization"]["stage"])


def make_plan(
    recipe: Recipe, recipe_file: Path | None, *, world_size: int, bf16_hardware: bool, runs_here: bool = True
) -> Plan:
    """Validate the recipe, fill in what it leaves open, and read the files that it names.

    ``runs_here``: whether this machine is to train it.

    Raises:
        ConfigError: the first value that cannot be used, in one line naming its field.
        DataError: ``data.prepared`` holds no intact corpus.
    """
    told = fill_from_prepared(recipe.data)
    recipe.validate()
    training = recipe.training
    if recipe.data.streaming is not None:
        recipe.data.streaming.check_ranks(world_size)
    recipe.profiler.check_ranks(world_size)
    accumulation_steps = training.accumulation_steps(world_size)
    precision = training.precision
    if precision == "auto":
        precision = "bf16" if bf16_hardware else "fp32"
    recipe.presence.uses_running_statistics(accumulation_steps)
    section = read_deepspeed_json(find_beside_recipe(recipe.deepspeed, recipe_file, "deepspeed"))
    device = get_accelerator().device_name() if runs_here else None
    model_config, warnings = _plan_model(recipe, device, precision)
    if runs_here and recipe.model.is_pretrained:
        check_weights(model_config, recipe.model)
    deepspeed = merge_deepspeed_config(
        section,
        training,
        world_size=world_size,
        precision=precision,
        untested_optimizer=not KINDS[recipe.optimizer.kind].listed,
    )
    try:
        try_settings(deepspeed)
        check_settings(deepspeed, runs_here=runs_here)
    except ConfigError as error:
        raise ConfigError(f"deepspeed: {error}") from None
    plan = Plan(
        deepspeed=deepspeed,
        model_config=model_config,
        lengths=recipe.data.lengths,
        precision=precision,
        padded=recipe.data.packing != "concat",
        warnings=(*told, *warnings),
    )
    if recipe.model.compile_backend is not None:
        check_compilable(recipe.presence, plan.zero_stage, f"model.compile is {recipe.model.compile}")
    return plan


def _plan_model(recipe: Recipe, device: str | None, precision: str) -> tuple[PretrainedConfig, tuple[str, ...]]:
    """The model's configuration, checked with all that decides whether it can be trained, and warnings."""
    model, data = recipe.model, recipe.data
    config = load_model_config(model)
    check_objective(config, data.objective)
    tokenizer = known_tokenizer(model, data)
    vocabulary = Vocabulary.to_be_trained(data) if tokenizer is None else Vocabulary.of(tokenizer)
    fit_vocabulary(config, model, vocabulary)
    empty = try_to_build(config, model)
    check_attention(config, model, device=device, precision=precision)
    lengths, field = data.lengths, "data.sequence_length"
    check_sequence_length(config, max(lengths.inputs, lengths.targets), field)
    if empty is not None:
        check_positions(empty, config, lengths, vocabulary, field)
        if data.document_mask:
            check_takes_positions(empty)
    warning = None if tokenizer is None else other_tokens(model, data, tokenizer)
    return config, () if warning is None else (warning,)
