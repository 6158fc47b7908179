"""Scores to weights: normaliser, temperature schedule, one softmax over the optimizer step."""

from presence_ds.reweighting.reweighting import Reweighting, StepWeights
from presence_ds.reweighting.schedule import ScheduleConfig, TemperatureSchedule

__all__ = ["Reweighting", "ScheduleConfig", "StepWeights", "TemperatureSchedule"]
