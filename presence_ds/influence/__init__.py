"""Self-influence scores from captured gradient terms."""

from presence_ds.influence.layers import select_parameters
from presence_ds.influence.loss import causal_lm_losses
from presence_ds.influence.self_influence import SelfInfluence

__all__ = ["SelfInfluence", "causal_lm_losses", "select_parameters"]
