"""Finding the checkpoint to go on from, and bringing everything back to it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from presence_ds.capture import full_shape
from presence_ds.errors import ConfigError
from presence_ds.trainer.checkpoint.config import CheckpointConfig
from presence_ds.trainer.checkpoint.loading import check_convertible, convert, load_universal, settings_of_the_recipe
from presence_ds.trainer.checkpoint.manifest import (
    DamagedError,
    Manifest,
    checkpoint_folders,
    damage,
    read_manifest,
)
from presence_ds.trainer.checkpoint.random_state import load_random_state
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.run_directory.layout import DAMAGED, UNFINISHED

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer


@dataclass(frozen=True)
class Resume:
    """The checkpoint to go on from.

    Attributes:
        path: its folder.
        manifest: what it is of.
        damaged: newer ones that were passed over.
        resized: whether another number of ranks wrote ZeRO's partitions, so that they have to be converted.
    """

    path: Path
    manifest: Manifest
    damaged: list[Path]
    resized: bool


def find_resume(config: CheckpointConfig, folder: Path, ranks: Ranks, warn: Callable[[str], None]) -> Resume | None:
    """The checkpoint to go on from, or None to start anew; called on every rank, which read a share of the files each.

    A damaged checkpoint is passed over for the next older one, with a line through ``warn``. Nothing is changed.

    Raises:
        ConfigError: the checkpoint named is damaged; all of the checkpoints in ``folder`` are, so that starting anew
            would drop a run; or it cannot be brought to this number of ranks.
    """
    if config.resume == "never":
        return None
    automatic = config.resume == "auto"
    named = [Path(config.resume).absolute()]
    candidates = ranks.broadcast(checkpoint_folders(folder)[::-1]) if automatic else named
    passed: dict[Path, str] = {}
    for candidate in candidates:
        try:
            manifest = ranks.on_main(partial(read_manifest, candidate))
        except DamagedError as error:
            passed[candidate] = str(error)
            continue
        problems = list(chain(*ranks.gather(damage(candidate, manifest, ranks.rank, ranks.world_size))))
        if problems:
            passed[candidate] = problems[0] + (f" and {len(problems) - 1} more" if len(problems) > 1 else "")
            continue
        for damaged, problem in passed.items():
            warn(
                f"checkpoint {damaged.name} is damaged ({problem}): going on from {candidate.name} instead; it is kept "
                f"as {damaged.with_name(DAMAGED + damaged.name)}"
            )
        resized = manifest.world_size != ranks.world_size and manifest.setup["zero_stage"] > 0
        if resized:
            check_convertible(manifest, candidate)
        return Resume(candidate, manifest, list(passed), resized)
    if not passed:
        return None
    what = "; ".join(f"{path.name}: {problem}" for path, problem in passed.items())
    if automatic:
        raise ConfigError(
            f"checkpoint.resume is auto and no checkpoint in {folder} is intact ({what}): name another checkpoint, or "
            f"a new run_dir to start anew"
        )
    raise ConfigError(
        f"checkpoint.resume is {config.resume}: it is no intact checkpoint ({what}); it must be auto, never, or a "
        f"directory such as RUN_DIR/checkpoints/step_00000100"
    )


def describe_setup(trainer: Trainer) -> dict[str, Any]:
    """What a run and a checkpoint must have in common, besides the parameters."""
    engine = trainer.engine
    return {
        "zero_stage": engine.zero_optimization_stage(),
        "precision": str(engine.module.dtype).removeprefix("torch."),
        "optimizer": type(engine.basic_optimizer).__name__,
        "tokens_per_step": trainer.tokens_per_step,
    }


def parameter_shapes(model: nn.Module) -> dict[str, list[int]]:
    """Name and whole shape of every parameter."""
    return {name: list(full_shape(parameter)) for name, parameter in model.named_parameters()}


def check_fits(trainer: Trainer, resume: Resume) -> None:
    """Whether the run can go on from the checkpoint, before anything is loaded.

    Raises:
        ConfigError: model, ZeRO stage, precision, optimizer or tokens per step are others.
    """
    here = parameter_shapes(trainer.engine.module)
    there = resume.manifest.parameters
    for name in dict.fromkeys([*here, *there]):
        if here.get(name) != there.get(name):
            raise ConfigError(
                f"checkpoint.resume: {resume.path} is of another model: parameter {name} is "
                f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here; resume with the model that "
                f"wrote it, or in a new run_dir"
            )
    for name, value in describe_setup(trainer).items():
        if resume.manifest.setup[name] != value:
            raise ConfigError(
                f"checkpoint.resume: {resume.path} was written with {name} {resume.manifest.setup[name]} and this run "
                f"has {value}: resume with the same"
            )


def restore(trainer: Trainer, resume: Resume) -> None:
    """Bring the engine, the position in the data, the random states and the callbacks back to the checkpoint.

    The settings of optimizer and learning rate are the recipe's.
    On another number of ranks everything but the random states is the same on all of them; these are drawn anew.
    """
    checkpoint, ranks = resume.path, trainer.ranks
    with settings_of_the_recipe(trainer.engine):
        if resume.resized:
            _load_resized(trainer, checkpoint)
        else:
            trainer.engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
    same_ranks = resume.manifest.world_size == ranks.world_size
    state = _load(checkpoint, ranks.rank if same_ranks else 0)
    if not same_ranks:
        state["trainer"]["batches"] = _divided_batches(trainer, checkpoint, resume.manifest.world_size)
    trainer.load_state_dict(state["trainer"])
    if same_ranks:
        load_random_state(state["random"])
    else:
        seed = hashlib.sha256(state["random"]["torch"].numpy().tobytes() + f" rank {ranks.rank}".encode()).digest()
        transformers.set_seed(int.from_bytes(seed[:4], "big"))


def _divided_batches(trainer: Trainer, checkpoint: Path, before: int) -> dict[str, Any]:
    """This rank's position in the data, out of those of the ``before`` ranks that wrote the checkpoint."""
    ranks = trainer.ranks
    divided = None
    with ranks.agreement():
        if ranks.is_main:
            states = (_load(checkpoint, rank)["trainer"]["batches"] for rank in range(before))
            divided = trainer.batches.divide(states, ranks.world_size)
    return ranks.scatter(divided)


def _load_resized(trainer: Trainer, checkpoint: Path) -> None:
    ranks = trainer.ranks
    folder = Path(ranks.on_main(partial(tempfile.mkdtemp, prefix=UNFINISHED, dir=checkpoint.parent)))
    try:
        ranks.on_main(partial(convert, checkpoint, folder / checkpoint.name))
        load_universal(trainer.engine, folder / checkpoint.name)
        ranks.barrier()
    finally:
        if ranks.is_main:
            shutil.rmtree(folder, ignore_errors=True)


def _load(checkpoint: Path, rank: int) -> dict[str, Any]:
    """What a rank has put into its own file."""
    state: dict[str, Any] = torch.load(checkpoint / trainer_file(rank), map_location="cpu", weights_only=True)
    return state


def trainer_file(rank: int) -> str:
    """Name of a rank's own file in a checkpoint."""
    return f"trainer_rank_{rank:05d}.pt"
