"""PRESENCE in the Hugging Face Trainer; needs `accelerate` (the extra ``hf``)."""

from presence_ds.hf.trainer import PresenceTrainer

__all__ = ["PresenceTrainer"]
