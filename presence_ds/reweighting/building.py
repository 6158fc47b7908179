"""The weight function that a configuration asks for."""

from presence_ds.reweighting.calibrated import Calibrated
from presence_ds.reweighting.config import ReweightingConfig
from presence_ds.reweighting.normalizers import NORMALIZERS
from presence_ds.reweighting.weight_functions import Clip, Normalized, Saturating, Softmax, Uniform, WeightFunction


def build_weight_function(config: ReweightingConfig) -> WeightFunction:
    """What the validated ``config`` asks for."""
    if "uniform" in (config.signal, config.weighting_kind):
        return Uniform()
    if config.weighting_kind == "clip":
        return Clip(config.weighting.quantile)
    if config.weighting_kind == "normalized":
        return Normalized()
    if config.weighting_kind == "calibrated":
        return Calibrated(config.weighting.features)
    normalizer = NORMALIZERS[config.normalizer]()
    if config.weighting_kind == "softmax":
        return Softmax(normalizer)
    return Saturating(normalizer, config.weighting.threshold)
