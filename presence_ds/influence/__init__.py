"""Per-sample losses, and self-influence scores from captured gradient terms."""

from presence_ds.influence.layers import select_parameters, vocabulary_parameters
from presence_ds.influence.loss import Normalizer, SampleLoss
from presence_ds.influence.self_influence import ScoreSweep, SelfInfluence

__all__ = ["Normalizer", "SampleLoss", "ScoreSweep", "SelfInfluence", "select_parameters", "vocabulary_parameters"]
