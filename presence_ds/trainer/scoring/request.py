"""What is asked of a scoring run beside its recipe."""

from dataclasses import dataclass
from pathlib import Path

from presence_ds.engine.inference import scoring_config
from presence_ds.errors import ConfigError
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.scores.layout import ROWS_PER_FILE


@dataclass(frozen=True)
class Request:
    """What is asked for beside a recipe.

    Attributes:
        output: the folder of scores.
        checkpoints: runs or checkpoints whose scores are summed; empty with ``model``.
        model: folder or name of a model with weights.
        shard: which of how many shares of the files, from 0.
        rows_per_file: rows of every file but the last.
    """

    output: Path
    checkpoints: tuple[str, ...] = ()
    model: str | None = None
    shard: tuple[int, int] = (0, 1)
    rows_per_file: int = ROWS_PER_FILE

    def check(self, recipe: Recipe) -> None:
        """Raise `ConfigError` for the first thing that cannot be done, as far as no file has to be read for that."""
        if bool(self.checkpoints) == (self.model is not None):
            state = "both are given" if self.checkpoints else "neither is given"
            raise ConfigError(f"--checkpoint and --model: {state}; give checkpoints of a run, or a model with weights")
        index, count = self.shard
        if not 0 <= index < count:
            raise ConfigError(f"--shard is {index}/{count}: it must be I/N with I from 0 to N - 1")
        if self.rows_per_file < 1:
            raise ConfigError(f"--rows_per_file is {self.rows_per_file}: it must be at least 1")
        if count > 1 and recipe.data.prepared is None:
            raise ConfigError(
                f"--shard is {index}/{count} without data.prepared: the shards would each prepare the corpus; make it "
                f"with presence prepare, and name its folder"
            )
        if recipe.training.precision == "fp16":
            raise ConfigError("training.precision is fp16, in which gradients may underflow: score in bf16 or fp32")
        scoring_config(recipe.presence)
