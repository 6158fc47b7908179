"""``presence estimate``: what a recipe needs, without a GPU and without a model's weights in memory."""

from presence_ds.trainer.estimate.estimate import Estimate, estimate

__all__ = ["Estimate", "estimate"]
