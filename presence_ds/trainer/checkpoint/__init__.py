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
