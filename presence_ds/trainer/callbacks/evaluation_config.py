"""The ``evaluation`` section of a recipe."""

from dataclasses import dataclass

from presence_ds.errors import ConfigError


@dataclass
class EvaluationConfig:
    """Loss, perplexity and bits per byte on the validation split, of each of its sources, with the plain model.

    Args:
        every_steps: Optimizer steps between two evaluations; there is always one at the end. null: only that one.
        max_batches: Most micro-batches per rank in one evaluation, drawn from all sources, the same ones each time.
            null: all of the split.
    """

    every_steps: int | None = 500
    max_batches: int | None = None

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        for name in ("every_steps", "max_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{field}.{name} is {value}: it must be at least 1, or null")
