"""DeepSpeed without PRESENCE: with the model's own loss, which is what a user has today, and with PRESENCE's.

The chunked loss makes no float32 copy of the logits and is faster than the model's own. Measured on its own it shows
how much of what PRESENCE gains or costs is due to the loss.
"""

import deepspeed
from torch import Tensor

from benchmarks.setting import Setting
from benchmarks.variants.step import Step
from presence_ds.influence import SampleLoss


def plain(setting: Setting, *, compiled: bool = False) -> Step:
    """The model's own loss."""
    engine, *_ = deepspeed.initialize(**setting.deepspeed(setting.model()))
    if compiled:
        engine.compile()

    def step(ids: Tensor) -> None:
        engine.backward(engine(input_ids=ids, labels=ids).loss)
        engine.step()

    return step


def plain_chunked_loss(setting: Setting) -> Step:
    """The mean of the per-sample losses that PRESENCE trains on."""
    engine, *_ = deepspeed.initialize(**setting.deepspeed(setting.model()))
    sample_loss = SampleLoss()

    def step(ids: Tensor) -> None:
        engine.backward(sample_loss(engine(input_ids=ids).logits, ids).mean())
        engine.step()

    return step
