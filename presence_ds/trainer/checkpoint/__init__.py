"""Checkpoints: written under a temporary name, listed in a manifest with checksums, renamed, and only then pointed to.

checkpoints/
  latest                     name of the newest complete checkpoint (the pointer DeepSpeed itself reads)
  step_00000100/
    manifest.json            what the checkpoint is of, and its recipe; size and SHA-256 of every file and of itself
    trainer_rank_00000.pt    position in the data, random states, callbacks, for each rank
    ...                      DeepSpeed's files, with the state of PRESENCE in them
  unfinished_step_00000200/  being written, or left by a run that was killed while writing
  damaged_step_00000100/     found damaged and passed over, with what was written after the checkpoint used instead
"""

from typing import TYPE_CHECKING

from presence_ds.lazy import lazy_names

if TYPE_CHECKING:
    from presence_ds.trainer.checkpoint.changed_recipe import (
        recipe_changes,
        recipe_values,
        stored_recipe,
        submitted_changes,
    )
    from presence_ds.trainer.checkpoint.config import CheckpointConfig
    from presence_ds.trainer.checkpoint.manifest import complete_checkpoints
    from presence_ds.trainer.checkpoint.resuming import Resume, check_fits, find_resume, restore
    from presence_ds.trainer.checkpoint.saving import Saver
    from presence_ds.trainer.checkpoint.universal import load_settings
else:
    __getattr__ = lazy_names(__name__, __file__)

__all__ = [
    "CheckpointConfig",
    "Resume",
    "Saver",
    "check_fits",
    "complete_checkpoints",
    "find_resume",
    "load_settings",
    "recipe_changes",
    "recipe_values",
    "restore",
    "stored_recipe",
    "submitted_changes",
]
