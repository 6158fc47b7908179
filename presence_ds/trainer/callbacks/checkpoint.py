"""Checkpoints: written under a temporary name, listed in a manifest, renamed, and only then pointed to.

checkpoints/
  latest                     name of the newest complete checkpoint (the pointer DeepSpeed itself reads)
  step_00000100/
    manifest.json            step, number of ranks, size of every file
    trainer_rank_00000.pt    position in the data, random states, callbacks, for each rank
    ...                      DeepSpeed's files, with the state of PRESENCE in them
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from deepspeed.accelerator import get_accelerator

from presence_ds.errors import ConfigError
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.run_directory import UNFINISHED, write_atomically, write_json

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer


@dataclass
class CheckpointConfig:
    """Saving the whole state of the run, and going on from it.

    Args:
        every_steps: Optimizer steps between two checkpoints. null: only the one at the end.
        at_end: Save after the last step.
        keep: Newest checkpoints kept; older ones are deleted. null: all.
        resume: auto goes on from the newest complete checkpoint in run_dir, and starts anew where there is none; never
            refuses a run_dir that holds a run; anything else is the path of a checkpoint (a step_* directory) to go on
            from. If that lies in run_dir, what run_dir holds of later steps is dropped.
    """

    every_steps: int | None = 1000
    at_end: bool = True
    keep: int | None = 2
    resume: str = "auto"

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        for name in ("every_steps", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{field}.{name} is {value}: it must be at least 1, or null")


class Checkpoints(Callback):
    """Saves every N steps and at the end."""

    def __init__(self, config: CheckpointConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder

    def on_step_end(self, trainer: Trainer) -> None:
        every = self._config.every_steps
        at_end = trainer.stopping or (trainer.is_last_step and self._config.at_end)
        if at_end or (every is not None and trainer.step % every == 0):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.notify("on_checkpoint")
        name = f"step_{trainer.step:08d}"
        unfinished = self._folder / (UNFINISHED + name)
        trainer.engine.save_checkpoint(str(self._folder), tag=unfinished.name, save_latest=False)
        state = {"trainer": trainer.state_dict(), "random": random_state()}
        torch.save(state, unfinished / trainer_file(trainer.ranks.rank))
        trainer.ranks.barrier()
        if trainer.ranks.is_main:
            commit(unfinished, self._folder / name, step=trainer.step, world_size=trainer.ranks.world_size)
            self._delete_old()
        trainer.ranks.barrier()

    def _delete_old(self) -> None:
        if self._config.keep is not None:
            for old in complete_checkpoints(self._folder)[: -self._config.keep]:
                shutil.rmtree(old)


def commit(unfinished: Path, final: Path, *, step: int, world_size: int) -> None:
    """Make a checkpoint that every rank has written durable and visible, then point ``latest`` to it."""
    files = sorted(file for file in unfinished.rglob("*") if file.is_file())
    for file in files:
        _sync(file)
    sizes = {str(file.relative_to(unfinished)): file.stat().st_size for file in files}
    write_json(unfinished / MANIFEST, {"step": step, "world_size": world_size, "files": sizes})
    _sync(unfinished)
    os.replace(unfinished, final)
    _sync(final.parent)
    write_atomically(final.parent / "latest", final.name)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of which every file in the manifest is there in full, oldest first."""
    return [path for path in sorted(folder.glob("step_*")) if is_complete(path)]


def is_complete(checkpoint: Path) -> bool:
    """Whether every file in the manifest is there with its size."""
    if not (checkpoint / MANIFEST).is_file():
        return False
    sizes = json.loads((checkpoint / MANIFEST).read_text())["files"]
    return all((checkpoint / name).is_file() and (checkpoint / name).stat().st_size == sizes[name] for name in sizes)


def find_resume(config: CheckpointConfig, folder: Path, world_size: int, field: str = "checkpoint") -> Path | None:
    """The checkpoint to go on from, or None to start anew.

    Raises:
        ConfigError: the checkpoint named is not complete, or was written by another number of ranks.
    """
    if config.resume == "never":
        return None
    if config.resume == "auto":
        complete = complete_checkpoints(folder)
        if not complete:
            return None
        checkpoint = complete[-1]
    else:
        checkpoint = Path(config.resume).absolute()
        if not is_complete(checkpoint):
            raise ConfigError(
                f"{field}.resume is {config.resume}: it is no complete checkpoint; it must be auto, never, or a "
                f"directory such as RUN_DIR/checkpoints/step_00000100"
            )
    ranks = json.loads((checkpoint / MANIFEST).read_text())["world_size"]
    if ranks != world_size:
        raise ConfigError(
            f"{field}.resume: {checkpoint} was written by {ranks} ranks and this run has {world_size}: "
            f"start it with {ranks}"
        )
    return checkpoint


def checkpoint_step(checkpoint: Path) -> int:
    """Optimizer step after which a complete checkpoint was written."""
    return int(json.loads((checkpoint / MANIFEST).read_text())["step"])


def restore(trainer: Trainer, checkpoint: Path) -> None:
    """Bring the engine, the position in the data, the random states and the callbacks back to ``checkpoint``."""
    trainer.engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
    state = torch.load(checkpoint / trainer_file(trainer.ranks.rank), map_location="cpu", weights_only=True)
    trainer.load_state_dict(state["trainer"])
    load_random_state(state["random"])


def random_state() -> dict[str, Any]:
    """States of the generators of Python, numpy, torch and the accelerator, as plain values and tensors."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "accelerator": get_accelerator().get_rng_state(),
    }


def load_random_state(state: dict[str, Any]) -> None:
    """Take back what `random_state` gave."""
    random.setstate(state["python"])
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    get_accelerator().set_rng_state(state["accelerator"])


def trainer_file(rank: int) -> str:
    """Name of a rank's own file in a checkpoint."""
    return f"trainer_rank_{rank:05d}.pt"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


MANIFEST = "manifest.json"
