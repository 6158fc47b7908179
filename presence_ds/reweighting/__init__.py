"""Scores to weights: signal, normaliser, temperature schedule, one weight function over the optimizer step."""

from typing import TYPE_CHECKING

from presence_ds.lazy import lazy_names

if TYPE_CHECKING:
    from presence_ds.reweighting.config import ReweightingConfig, WeightingConfig, check_comparable, check_running
    from presence_ds.reweighting.messages import Messages
    from presence_ds.reweighting.reweighting import Reweighting
    from presence_ds.reweighting.samples import MicroBatch, Samples
    from presence_ds.reweighting.schedule import ScheduleConfig, TemperatureSchedule
    from presence_ds.reweighting.step_weights import StepWeights
    from presence_ds.reweighting.value.worth import Worth
else:
    __getattr__ = lazy_names(__name__, __file__)

__all__ = [
    "Messages",
    "MicroBatch",
    "Reweighting",
    "ReweightingConfig",
    "Samples",
    "ScheduleConfig",
    "StepWeights",
    "TemperatureSchedule",
    "WeightingConfig",
    "Worth",
    "check_comparable",
    "check_running",
]
