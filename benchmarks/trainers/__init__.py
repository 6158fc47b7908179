"""The trainers that are compared, one file for those that belong together.

Each is called with a run and with what to call before its first step and whenever the setting says that it rests.
"""

from collections.abc import Callable
from functools import partial

from benchmarks.trainers.hugging_face import presence_trainer, transformers_trainer
from benchmarks.trainers.ours import trainer
from benchmarks.trainers.run import Run
from benchmarks.trainers.setting import TrainerSetting

TRAINERS: dict[str, Callable[[Run, Callable[[], None]], None]] = {
    "transformers.Trainer": transformers_trainer,
    "loss": partial(trainer, signal="loss"),
    "uniform": partial(trainer, signal="uniform"),
    "self_influence": partial(trainer, signal="self_influence"),
    "PresenceTrainer": presence_trainer,
}
BASELINE = "transformers.Trainer"

__all__ = ["BASELINE", "TRAINERS", "Run", "TrainerSetting"]
