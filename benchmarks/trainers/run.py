"""What every trainer of the comparison is given, and what it tells."""

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.trainers.setting import TrainerSetting
from presence_ds.trainer.ranks.process_group import Ranks


@dataclass
class Run:
    """One trainer's run on this rank.

    Attributes:
        setting: what is trained.
        folder: of its own; ``corpus`` is in it.
        ranks: the process group of this trainer.
        losses: to be filled: by logged optimizer step, the mean loss over the samples of all ranks.
    """

    setting: TrainerSetting
    folder: Path
    ranks: Ranks
    losses: dict[int, float] = field(default_factory=dict)
