"""The ``tensorboard`` section of a recipe."""

from dataclasses import dataclass

from presence_ds.sections import limited
from presence_ds.trainer.trackers.config import check_installed


@dataclass
class TensorboardConfig:
    """TensorBoard, which comes with `pip install presence-ds[tensorboard]`.

    Args:
        enabled: Write what goes to metrics.jsonl, and histograms, to RUN_DIR/tensorboard.
        table_every: Optimizer steps between two tables of the samples with the highest and the lowest weights. null:
            none.
        sample_text: Put the text of these samples into the tables. false leaves it out; names of sources and
            document ids stay.
    """

    enabled: bool = False
    table_every: int | None = limited(None, least=1)
    sample_text: bool = True

    def validate(self, field: str) -> None:
        """Raise `ConfigError` if it is enabled and not installed."""
        if self.enabled:
            check_installed("tensorboard", field)
