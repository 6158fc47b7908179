"""PRESENCE as a user has it."""

from typing import Any

from torch import Tensor

import presence_ds
from benchmarks.setting import Setting
from benchmarks.variants.step import Step


def presence(setting: Setting, *, compiled: bool = False, **section: Any) -> Step:
    """A step with the fields ``section`` of the ``presence`` section; the scores are the signal's."""
    section |= {
        "projection_dim": setting.projection_dim,
        "preset": "paper",
        "schedule": {"kind": "constant", "tau_direct": 1.0},
    }
    engine, *_ = presence_ds.initialize(**setting.deepspeed(setting.model()), presence=section)
    if compiled:
        engine.compile()

    def step(ids: Tensor) -> Tensor | None:
        engine.backward(engine(input_ids=ids, labels=ids))
        engine.step()
        return engine.presence.scores if engine.presence.scores is not None else engine.presence.losses

    return step
