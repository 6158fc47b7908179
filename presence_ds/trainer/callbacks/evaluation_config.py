"""The ``evaluation`` section of a recipe."""

from dataclasses import dataclass

from presence_ds.sections import limited


@dataclass
class EvaluationConfig:
    """Loss, perplexity and bits per byte on the validation split, of each of its sources, with the plain model.

    Args:
        every_steps: Optimizer steps between two evaluations; there is always one at the end. null: only that one.
        max_batches: Most micro-batches per rank in one evaluation, drawn from all sources, the same ones each time.
            null: all of the split.
        by_frequency: Whether to tell the loss of each tenth of the targets too, from those whose tokens are the most
            frequent among them to the rarest: what is gained on the whole may be lost on rare words.
    """

    every_steps: int | None = limited(500, least=1)
    max_batches: int | None = limited(None, least=1)
    by_frequency: bool = False
