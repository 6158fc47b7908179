"""A checkpoint as a Hugging Face folder: configuration, safetensors, tokenizer."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, PreTrainedModel

from presence_ds.data.corpus.manifest import TOKENIZER_FOLDER
from presence_ds.errors import ConfigError
from presence_ds.trainer.building.device import DTYPES
from presence_ds.trainer.checkpoint.manifest import MANIFEST, DamagedError, complete_checkpoints, damage, read_manifest
from presence_ds.trainer.checkpoint.weights import MODEL_FILES, read_weights
from presence_ds.trainer.run_directory.layout import RunDirectory


def export(
    source: Path, output: Path, *, dtype: str = "fp32", tokenizer: Path | None = None, overwrite: bool = False
) -> PreTrainedModel:
    """Write the model of a checkpoint to ``output``, which appears only when it is complete and has been read back.

    The model is held in memory twice, in ``dtype``.

    Args:
        source: as for `find_checkpoint`.
        dtype: a key of `DTYPES`.
        tokenizer: folder of a tokenizer to put beside the model. None: the one of the run directory, if there is one.
        overwrite: whether ``output`` may be a model already, which is then replaced.

    Returns:
        The model as read back, on the CPU.

    Raises:
        ConfigError: the checkpoint cannot be used, or ``output`` is there.
    """
    if output.exists() and not overwrite:
        raise ConfigError(f"output is {output}, which is there already: name a new folder, or give --overwrite")
    if output.exists() and not (output / "config.json").is_file():
        raise ConfigError(f"output is {output}, which holds no model: it is not overwritten, name another folder")
    if tokenizer is not None and not tokenizer.is_dir():
        raise ConfigError(f"tokenizer is {tokenizer}: there is no such folder")
    checkpoint = find_checkpoint(source)
    if tokenizer is None:
        tokenizer = tokenizer_of_run(checkpoint)
    weights, description = read_weights(checkpoint)
    model = build(checkpoint, description, weights, DTYPES[dtype])
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
        written = Path(folder, "model")
        model.save_pretrained(written)
        if tokenizer is not None:
            shutil.copytree(tokenizer, written, dirs_exist_ok=True)
        found = read_back(written, model)
        if output.exists():
            os.replace(output, Path(folder, "replaced"))
        os.replace(written, output)
    return found


def tokenizer_of_run(checkpoint: Path) -> Path | None:
    """Folder of the tokenizer that the run of a checkpoint trained with; None where its run directory has none."""
    run = RunDirectory(checkpoint.absolute().parent.parent)
    return next((folder for folder in (run.tokenizer, run.corpus / TOKENIZER_FOLDER) if folder.is_dir()), None)


def find_checkpoint(source: Path) -> Path:
    """The directory with DeepSpeed's files that ``source`` means.

    Args:
        source: a run directory (its newest complete checkpoint), a checkpoint, or a directory with a ``latest`` file:
            what `engine.save_checkpoint` was given, or a ``checkpoint-N`` of `PresenceTrainer`.

    Raises:
        ConfigError: there is no checkpoint, or it is not complete.
    """
    if (source / "checkpoints").is_dir():
        complete = complete_checkpoints(source / "checkpoints")
        if not complete:
            raise ConfigError(f"checkpoint is {source}: this run has no complete checkpoint yet")
        source = complete[-1]
    elif (source / "latest").is_file():
        source = source / (source / "latest").read_text(encoding="utf-8").strip()
    if not any(source.glob(MODEL_FILES)):
        raise ConfigError(
            f"checkpoint is {source}: there is no checkpoint; it must be a run directory, or a directory such as "
            f"RUN_DIR/checkpoints/step_00000100"
        )
    if (source / MANIFEST).is_file():  # a checkpoint that DeepSpeed wrote in another loop has none
        try:
            problems = damage(source, read_manifest(source))
        except DamagedError as error:
            problems = [str(error)]
        if problems:
            raise ConfigError(f"checkpoint is {source}: it is damaged ({problems[0]}); name another checkpoint")
    return source


def build(
    checkpoint: Path, description: dict[str, str], weights: Mapping[str, Any], dtype: torch.dtype
) -> PreTrainedModel:
    """The model on the CPU in ``dtype``.

    Args:
        description, weights: what `read_weights` returned.

    Raises:
        ConfigError: the checkpoint does not say what model it is of, or has other weights than that model.
    """
    kind = getattr(transformers, description.get("class", ""), None)
    if kind is None:
        raise ConfigError(
            f"checkpoint is {checkpoint}: it does not say that it is of a model class of transformers "
            f"{transformers.__version__} ({description.get('class', 'no class')}), so that nothing can be exported"
        )
    config = kind.config_class.from_dict(json.loads(description["config"]))
    with torch.device("meta"):
        model = kind(config).to(dtype)
    whole = ((name, weight.contiguous()) for name, weight in weights.items())
    loaded = {name: weight.to(dtype) if weight.is_floating_point() else weight for name, weight in whole}
    try:
        model.load_state_dict(loaded, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"checkpoint is {checkpoint}: {' '.join(str(error).split())[:300]}") from None
    model.tie_weights()
    if "generation_config" in description:
        model.generation_config = GenerationConfig.from_dict(json.loads(description["generation_config"]))
    return model.eval()


def read_back(folder: Path, model: PreTrainedModel) -> PreTrainedModel:
    """The model in ``folder`` as `from_pretrained` loads it.

    Raises:
        ConfigError: it is not ``model`` to the bit.
    """
    found, info = type(model).from_pretrained(
        folder, dtype=model.dtype, output_loading_info=True, local_files_only=True, use_safetensors=True
    )
    theirs = found.state_dict()
    differing = [name for name, weight in model.state_dict().items() if not torch.equal(theirs[name], weight)]
    if problems := [*differing, *(name for names in info.values() for name in names)]:
        raise ConfigError(f"export: {type(model).__name__} does not load as it was written: {problems[0]} differs")
    return found.eval()
