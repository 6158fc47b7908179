"""The statistics that a configuration yields, and what holds of any of them."""

import json
import math
from typing import Any

from presence_ds.engine import PresenceConfig

COUNTS = {"samples", "nonfinite_samples", "samples_without_targets"}
ALWAYS = COUNTS | {"stage", "loss", "weighted_loss", "effective_sample_size", "max_weight"}
OF_SCORES = {"si_mean", "si_variance", "si_min", "si_max"}
OF_SOURCES = {"samples", "mean_weight", "loss"}
OF_GRADIENTS = {"gradient_sq_norm", "gradient_noise"}
NOT_ALWAYS = {"clip_level", "switch_step", "noise_scale", "noise_scale_tokens"}


def expected_names(config: PresenceConfig) -> set[str]:
    """Names of a step's statistics, but for `NOT_ALWAYS` and those of sources."""
    names = set(ALWAYS)
    if config.computes_gradients:
        names |= OF_SCORES
    if config.has_temperature:
        names.add("tau")
        if config.signal != "uniform" and config.normalizer != "rank":
            names |= {"normalizer_mean", "normalizer_std"}
    if config.min_effective_share is not None and config.has_temperature:
        names.add("tau_scheduled")
    if config.calibrates:
        names.add("calibration_strength")
    if config.aligns:
        names |= OF_GRADIENTS
    if config.near_duplicates is not None:
        names.add("near_duplicate_share")
    return names


def may_occur(config: PresenceConfig) -> set[str]:
    """Those of `NOT_ALWAYS` that belong to the configuration, where a gradient or a decision is missing."""
    names = set()
    if config.weighting_kind == "clip" and config.signal != "uniform":
        names.add("clip_level")
    if config.aligns:
        names |= {"noise_scale", "noise_scale_tokens"}
    if config.has_temperature and config.schedule.kind == "auto":
        names.add("switch_step")
    return names


def expected_of_source(config: PresenceConfig) -> set[str]:
    return OF_SOURCES | {"si_mean"} if config.computes_gradients else OF_SOURCES


def check_statistics(statistics: dict[str, Any], config: PresenceConfig) -> None:
    """`engine.presence.statistics` of a step: the names that the configuration yields, finite numbers, a stage."""
    found = dict(statistics)
    sources = found.pop("sources")
    del found["step"]
    expected = expected_names(config)
    if found["samples"] - found["nonfinite_samples"] - found["samples_without_targets"] < 2:
        expected -= OF_GRADIENTS  # a sample alone says nothing of what samples have in common
    assert found.keys() - may_occur(config) == expected
    for source in sources.values():
        assert source.keys() == expected_of_source(config)
    check_line(found)


def check_line(line: dict[str, Any]) -> None:
    """A line of metrics: finite numbers or null, but for words; weights within what N samples can have."""
    for name, value in line.items():
        assert value is None or name.endswith(("stage", "verdict")) or math.isfinite(value), (name, value)
    samples = line["samples"]
    assert line["stage"] in ("constant", "direct", "inverse")
    assert 0 < line["effective_sample_size"] <= samples * (1 + 1e-9)
    assert 1 / samples <= line["max_weight"] * (1 + 1e-9) <= 1 + 1e-6


def strict_json(text: str) -> Any:
    """Parsed as any JSON reader parses it: without NaN and infinities."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)
