"""Layer rules, one file each; importing this package registers them."""

from presence_ds.capture.rules import conv1d, embedding, layer_norm, linear, own_forward, relative_bias, scaled_norm
from presence_ds.capture.rules.general import general_rule

__all__ = [
    "conv1d",
    "embedding",
    "general_rule",
    "layer_norm",
    "linear",
    "own_forward",
    "relative_bias",
    "scaled_norm",
]
