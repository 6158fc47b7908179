"""The ``checkpoint`` section of a recipe."""

from dataclasses import dataclass

from presence_ds.sections import limited


@dataclass
class CheckpointConfig:
    """Saving the whole state of the run, and going on from it.

    Args:
        every_steps: Optimizer steps between two checkpoints. null: only the one at the end.
        at_end: Save after the last step.
        asynchronous: Go on training while a checkpoint is written. Every rank copies its part to host memory, which it
            keeps for the next one, and a thread writes it; the checkpoint appears some steps later. One at a time: the
            next one, the end of the run and a stop wait for it.
        keep: Newest checkpoints kept; older ones are deleted once a new one is complete. null: all.
        keep_every: Checkpoints of steps that this divides are never deleted. null: no such exception.
        resume: auto goes on from the newest intact checkpoint in run_dir, and starts anew where there is none; never
            refuses a run_dir that holds a run; anything else is the path of a checkpoint (a step_* directory) to go on
            from. If that lies in run_dir, what run_dir holds of later steps is dropped.
    """

    every_steps: int | None = limited(1000, least=1)
    at_end: bool = True
    asynchronous: bool = False
    keep: int | None = limited(2, least=1)
    keep_every: int | None = limited(None, least=1)
    resume: str = "auto"
