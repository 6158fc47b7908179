"""The models that score: checkpoints of runs, or one with weights of its own, and whether they fit."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from presence_ds.data import TokenizerConfig, load_tokenizer
from presence_ds.engine.resume_rules import Rule, Table, changes, refuse
from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.building.construction import build_model
from presence_ds.trainer.building.own_tokenizer import difference
from presence_ds.trainer.checkpoint.changed_recipe import OF_THE_LIBRARY, stored_recipe
from presence_ds.trainer.checkpoint.export import find_checkpoint, tokenizer_of_run
from presence_ds.trainer.checkpoint.manifest import MANIFEST, read_manifest, record_file
from presence_ds.trainer.checkpoint.weights import read_description, read_weights
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.scoring.request import Request

OF_THE_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
TRAINED_ON: Table = [
    ("model", Rule("refused", "the weights are those of that model")),
    (
        "data.objective.kind data.objective.noise_density data.objective.mean_span_length data.sequence_length "
        "data.document_mask",
        Rule("refused", "the model was trained on such samples"),
    ),
]


@dataclass(frozen=True)
class ScoringModel:
    """Weights that score.

    Attributes:
        name: tells it from others.
        path: absolute folder of a checkpoint; or the folder or name of a model, as it was given.
        step: optimizer step of a checkpoint, where that is known.
        digest: SHA-256 of a checkpoint's manifest, or of what is known of a folder's files, by which it is known
            wherever it lies; of a model on the hub its commit; None of a checkpoint without a manifest.
        is_checkpoint: whether ``path`` is one.
    """

    name: str
    path: str
    step: int | None = None
    digest: str | None = None
    is_checkpoint: bool = True

    def described(self) -> dict[str, Any]:
        """For the manifest of scores."""
        return {name: value for name, value in asdict(self).items() if name != "is_checkpoint"}

    def build(self, config: PretrainedConfig, recipe: Recipe) -> nn.Module:
        """The model in float32 on the CPU.

        Args:
            config: fitted to the tokenizer.

        Raises:
            ConfigError: the weights are of another model, or cannot be read.
        """
        built = build_model(config, recipe.model)
        if self.is_checkpoint:
            weights, _ = read_weights(Path(self.path))
            try:
                built.load_state_dict({name: weight.contiguous() for name, weight in weights.items()})
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise ConfigError(f"checkpoint is {self.path}: it is of another model ({reason})") from None
        return built


def find_models(checkpoints: Sequence[str], model: str | None, commit: str | None = None) -> list[ScoringModel]:
    """What ``checkpoints`` (as for `find_checkpoint`) or ``model`` name; every file of a checkpoint is read once.

    Args:
        commit: of a model on the hub.

    Raises:
        ConfigError: there is no whole checkpoint, or one is named twice.
    """
    if model is not None:
        return [_pretrained(model, commit)]
    found = [find_checkpoint(Path(path).expanduser()).absolute() for path in checkpoints]
    folders = Counter(path.name for path in found)
    names = [path.name if folders[path.name] == 1 else f"{path.parents[1].name}-{path.name}" for path in found]
    for name, count in Counter(names).items():
        if count > 1:
            raise ConfigError(f"checkpoint is given {count} times as {name}: give every checkpoint once")
    return [_checkpoint(name, path) for name, path in zip(names, found, strict=True)]


def _pretrained(model: str, commit: str | None) -> ScoringModel:
    folder = Path(model).expanduser()
    if not folder.is_dir():  # on the hub
        return ScoringModel("model", model, digest=commit, is_checkpoint=False)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.py"))]
    sums = [[file.name, record_file(file).sha256] for file in files]
    digest = hashlib.sha256(json.dumps(sums).encode()).hexdigest()
    return ScoringModel("model", str(folder.absolute()), digest=digest, is_checkpoint=False)


def _checkpoint(name: str, path: Path) -> ScoringModel:
    if not (path / MANIFEST).is_file():  # written by DeepSpeed in another loop
        return ScoringModel(name, str(path))
    digest = hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    return ScoringModel(name, str(path), read_manifest(path).step, digest)


def scoring_recipe(recipe: Recipe, request: Request) -> Recipe:
    """``recipe`` with the model that scores, and without what only a training has; not yet validated.

    Scores are of rows, so that text which the training streams is prepared here, with the tokenizer of that training.

    Raises:
        ConfigError: there is no checkpoint to take the tokenizer from.
    """
    data, model = recipe.data, request.model
    if data.streaming is not None:
        tokenizer = data.tokenizer
        if tokenizer.path is None and request.checkpoints:
            own = tokenizer_of_run(find_checkpoint(Path(request.checkpoints[0]).expanduser()))
            tokenizer = tokenizer if own is None else replace(tokenizer, path=str(own), vocab_size=None)
        recipe = replace(recipe, data=replace(data, streaming=None, tokenizer=tokenizer))
    if model is None:
        recipe.use_tokenizer_of_model()
        scoring = replace(recipe.model, from_scratch=recipe.model.path is not None, differing_weights=[])
    else:
        trusted, attention = recipe.model.trust_remote_code, recipe.model.attention
        scoring = type(recipe.model)(path=model, trust_remote_code=trusted, attention=attention)
    return replace(
        recipe,
        model=replace(scoring, activation_checkpointing=False, compile=False),
        training=replace(recipe.training, global_batch_size=None, gradient_accumulation_steps=None),
        profiler=replace(recipe.profiler, enabled=False),
        run_dir=None,
    )


def check_trained_on(
    model: ScoringModel, config: PretrainedConfig, recipe: Recipe, warn: Callable[[str], None], *, fitted: bool
) -> None:
    """Whether a checkpoint is of the recipe's model, and of a run with the recipe's objective and length.

    Args:
        config: of the recipe's model.
        warn: takes a line if there is nothing to compare with.
        fitted: whether ``config`` is fitted to the tokenizer of the corpus.

    Raises:
        ConfigError: the first difference.
    """
    if not model.is_checkpoint:
        return
    checkpoint = Path(model.path)
    description = read_description(checkpoint)
    if "config" not in description:
        raise ConfigError(f"checkpoint is {checkpoint}: it does not say that it is of a model of transformers")
    left_out = OF_THE_LIBRARY if fitted else (*OF_THE_LIBRARY, *OF_THE_TOKENIZER)
    before, now = (
        {name: value for name, value in json.loads(text).items() if name not in left_out}
        for text in (description["config"], config.to_json_string(use_diff=False))
    )
    found = changes(TRAINED_ON, {"model": before}, {"model": now})
    stored = stored_recipe(checkpoint, read_manifest(checkpoint)) if (checkpoint / MANIFEST).is_file() else None
    if stored is None:
        warn(f"checkpoint {checkpoint} does not say what it was trained on: objective and length cannot be compared")
    else:
        found += changes(TRAINED_ON, _samples(stored["data"]), _samples(asdict(recipe.data)))
    refuse(found, str(checkpoint), "name another checkpoint")


def _samples(data: dict[str, Any]) -> dict[str, Any]:
    """What decides how a sample looks, in a section data; of spans only where there are any."""
    objective = dict(data.get("objective", {}))
    if objective.get("kind") == "causal":
        objective = {"kind": "causal"}
    named = {"objective": objective, "sequence_length": data.get("sequence_length")}
    named["document_mask"] = data.get("document_mask", False)
    return {"data": {name: value for name, value in named.items() if value is not None}}


def check_tokenizer(
    model: ScoringModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, warn: Callable[[str], None]
) -> None:
    """Raise `ConfigError` if a model has learned other token ids than those of the corpus, as far as that is known.

    ``warn`` takes a line if there is a tokenizer that cannot be compared.
    """
    path = tokenizer_of_run(Path(model.path)) if model.is_checkpoint else recipe.model.source
    if path is None:
        return
    try:
        own = load_tokenizer(TokenizerConfig(path=str(path), trust_remote_code=recipe.model.trust_remote_code))
    except DataError as error:
        warn(f"whether {model.path} was trained with the tokenizer of the corpus cannot be compared: {error}")
        return
    if (found := difference(tokenizer, own)) is not None:
        what = "checkpoint" if model.is_checkpoint else "model"
        raise ConfigError(
            f"{what} is {model.path}: it was trained with another tokenizer than the corpus was made with ({found}); "
            f"prepare the corpus with the model's own"
        )
