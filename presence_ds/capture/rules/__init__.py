"""Layer rules, one file each; importing this package registers them."""

from presence_ds.capture.rules.conv1d import Conv1D
from presence_ds.capture.rules.embedding import Embedding
from presence_ds.capture.rules.general import General
from presence_ds.capture.rules.layer_norm import LayerNorm
from presence_ds.capture.rules.linear import Linear
from presence_ds.capture.rules.own_forward import OwnForward
from presence_ds.capture.rules.relative_bias import RelativeBias
from presence_ds.capture.rules.scale import Scale
from presence_ds.capture.rules.scaled_norm import ScaledNorm

__all__ = [
    "Conv1D",
    "Embedding",
    "General",
    "LayerNorm",
    "Linear",
    "OwnForward",
    "RelativeBias",
    "Scale",
    "ScaledNorm",
]
