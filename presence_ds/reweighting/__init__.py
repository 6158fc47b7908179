"""Scores to weights: signal, normaliser, temperature schedule, one weight function over the optimizer step."""

from presence_ds.reweighting.config import ReweightingConfig, WeightingConfig, check_running
from presence_ds.reweighting.reweighting import Reweighting, StepWeights
from presence_ds.reweighting.samples import MicroBatch
from presence_ds.reweighting.schedule import ScheduleConfig, TemperatureSchedule

__all__ = [
    "MicroBatch",
    "Reweighting",
    "ReweightingConfig",
    "ScheduleConfig",
    "StepWeights",
    "TemperatureSchedule",
    "WeightingConfig",
    "check_running",
]
