"""Saving a checkpoint on all ranks, and deleting old ones."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

import presence_ds
from presence_ds.capture import full_shape
from presence_ds.trainer.checkpoint.config import CheckpointConfig
from presence_ds.trainer.checkpoint.manifest import (
    FileRecord,
    Manifest,
    complete_checkpoints,
    read_manifest,
    record_file,
    sync,
    write_manifest,
)
from presence_ds.trainer.checkpoint.random_state import random_state
from presence_ds.trainer.checkpoint.resuming import describe_setup, parameter_shapes, trainer_file
from presence_ds.trainer.checkpoint.writer import CheckpointWriter, Written, attach_writer
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.run_directory.layout import UNFINISHED, write_atomically

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer


GIB = 2**30
OPTIMIZER_BYTES = 12  # for each parameter: float32 weights and the two moments of Adam


class Saver:
    """Writes checkpoints of one run into ``folder``, one at a time."""

    def __init__(self, config: CheckpointConfig, folder: Path, recipe: dict[str, Any]) -> None:
        """``recipe``: what the run's recipe came to (`changed_recipe.recipe_values`)."""
        self._config = config
        self._recipe = recipe
        self._folder = folder
        self._writer = CheckpointWriter(asynchronous=config.asynchronous)
        self._begun: tuple[Path, Manifest] | None = None  # the folder it is in, and all but the files

    @property
    def unfinished_step(self) -> int | None:
        """The optimizer step whose checkpoint is begun and not complete; None without one."""
        return None if self._begun is None else self._begun[1].step

    @property
    def busy(self) -> bool:
        """Whether this rank is still writing what is begun, so that `complete` would have to wait."""
        return self._writer.busy

    def begin(self, trainer: Trainer) -> str | None:
        """Begin to write the state after the trainer's current step; on every rank, with none unfinished.

        When it returns, the trainer may go on.

        Returns:
            None, or, the same on every rank, why nothing is begun.
        """
        if trainer.engine.checkpoint_engine is not self._writer:
            attach_writer(trainer.engine, self._writer)
        ranks = trainer.ranks
        final = self._folder / f"step_{trainer.step:08d}"
        unfinished = final.with_name(UNFINISHED + final.name)
        if ranks.broadcast(final.exists()):  # the one that the run has just gone on from
            return None
        shortage = None
        if ranks.is_main:
            shutil.rmtree(unfinished, ignore_errors=True)
            shortage = lack_of_space(self._folder, trainer.engine.module)
        if (shortage := ranks.broadcast(shortage)) is not None:
            return shortage
        self._writer.begin(unfinished)
        trainer.engine.save_checkpoint(str(self._folder), tag=unfinished.name, save_latest=False)
        state = {"trainer": trainer.state_dict(), "random": random_state()}
        self._writer.save(state, unfinished / trainer_file(ranks.rank))
        self._writer.start()
        manifest = Manifest(
            step=trainer.step,
            world_size=ranks.world_size,
            setup=describe_setup(trainer),
            parameters=parameter_shapes(trainer.engine.module),
            files={},
            versions={"presence_ds": presence_ds.__version__, "deepspeed": version("deepspeed")},
            recipe=self._recipe,
        )
        self._begun = unfinished, manifest
        return None

    def complete(self, ranks: Ranks) -> str | None:
        """Wait until what is begun is written, and make it the newest checkpoint; on every rank.

        Returns:
            None when the checkpoint is on the disk and pointed to; otherwise, the same on every rank, why there is
            none. What was there before is untouched then.
        """
        if self._begun is None:
            return None
        written = ranks.collect(self._writer.finish())
        begun, self._begun = self._begun, None
        problem = None
        if written is not None:
            problem = commit(*begun, written)
            if problem is None:
                self._delete_old()
        return ranks.broadcast(problem)

    def abandon(self) -> None:
        """Write no more of what is begun; it stays unfinished, and the next run removes it."""
        self._writer.abandon()

    def _delete_old(self) -> None:
        if self._config.keep is None:
            return
        for old in complete_checkpoints(self._folder)[: -self._config.keep]:
            every = self._config.keep_every
            if every is None or int(old.name.removeprefix("step_")) % every != 0:
                with suppress(OSError):  # it is tried again after the next checkpoint
                    delete(old)


def commit(unfinished: Path, manifest: Manifest, written: list[Written]) -> str | None:
    """Make a checkpoint durable and visible, then point ``latest`` to it.

    Args:
        unfinished: its folder, into which every rank has written its part.
        manifest: all but the files.
        written: what each rank wrote.

    Returns:
        None, or why there is no checkpoint; nothing is left of it then.
    """
    final = unfinished.with_name(unfinished.name.removeprefix(UNFINISHED))
    try:
        for rank, part in enumerate(written):
            if part.error is not None:
                raise OSError(f"{part.error} (rank {rank})")
        manifest.files.update(_files(unfinished, written))
        write_manifest(unfinished, manifest)
        sync([unfinished, *(folder for folder in unfinished.rglob("*") if folder.is_dir())])
        os.replace(unfinished, final)
        sync([final.parent])
        write_atomically(final.parent / "latest", final.name)
    except OSError as error:
        for folder in (unfinished, final):
            shutil.rmtree(folder, ignore_errors=True)
        return str(error)
    return None


def _files(unfinished: Path, written: list[Written]) -> dict[str, FileRecord]:
    """Records of every file in the folder: the ranks', and of what DeepSpeed put there past the writer."""
    records = {name: record for part in written for name, record in part.files.items()}
    present = {str(file.relative_to(unfinished)) for file in unfinished.rglob("*") if file.is_file()}
    unseen = sorted(set(records) - present)
    if unseen:
        raise OSError(f"rank 0 does not see {unseen[0]}: every rank must see the same run_dir")
    for name in sorted(present - set(records)):
        sync([unfinished / name])
        records[name] = record_file(unfinished / name)
    return dict(sorted(records.items()))


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint; a crash in between leaves what is known not to be one."""
    doomed = checkpoint.with_name(UNFINISHED + checkpoint.name)
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(checkpoint, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def lack_of_space(folder: Path, model: nn.Module) -> str | None:
    """None if the file system of ``folder`` has room for another checkpoint, otherwise how much is missing.

    A checkpoint is taken to be as large as the newest one, or, before there is one, as weights and Adam's state.
    """
    existing = complete_checkpoints(folder)
    if existing:
        needed = read_manifest(existing[-1]).bytes
    else:
        needed = sum(full_shape(p).numel() * (p.element_size() + OPTIMIZER_BYTES) for p in model.parameters())
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    return f"{folder} has {free / GIB:.3g} GiB free and a checkpoint takes about {needed / GIB:.3g} GiB"
