"""The statistics that a configuration yields, and what holds of any of them."""

import json
import math
from typing import Any

from presence_ds.engine import PresenceConfig

COUNTS = {"samples", "nonfinite_samples", "samples_without_targets"}
ALWAYS = COUNTS | {"stage", "loss", "weighted_loss", "effective_sample_size", "max_weight"}
OF_SCORES = {"si_mean", "si_variance", "si_min", "si_max"}
OF_SOURCES = {"samples", "mean_weight", "loss"}
NOT_ALWAYS = {"clip_level", "switch_step"}  # no sample has a gradient; schedule auto has not decided


def expected_names(config: PresenceConfig) -> set[str]:
    """Names of a step's statistics, but for `NOT_ALWAYS` and those of sources."""
    names = set(ALWAYS)
    if config.signal != "loss":
        names |= OF_SCORES
    if config.has_temperature:
        names.add("tau")
        if config.signal != "uniform" and config.normalizer != "rank":
            names |= {"normalizer_mean", "normalizer_std"}
    if config.min_effective_share is not None:
        names.add("tau_scheduled")
    if config.near_duplicates is not None:
        names.add("near_duplicate_share")
    return names


def may_occur(config: PresenceConfig) -> set[str]:
    """Those of `NOT_ALWAYS` that belong to the configuration."""
    names = set()
    if not config.has_temperature and config.signal != "uniform":
        names.add("clip_level")
    if config.has_temperature and config.schedule.kind == "auto":
        names.add("switch_step")
    return names


def expected_of_source(config: PresenceConfig) -> set[str]:
    return OF_SOURCES if config.signal == "loss" else OF_SOURCES | {"si_mean"}


def check_statistics(statistics: dict[str, Any], config: PresenceConfig) -> None:
    """`engine.presence.statistics` of a step: the names that the configuration yields, finite numbers, a stage."""
    found = dict(statistics)
    sources = found.pop("sources")
    del found["step"]
    assert found.keys() - may_occur(config) == expected_names(config)
    for source in sources.values():
        assert source.keys() == expected_of_source(config)
    check_line(found)


def check_line(line: dict[str, Any]) -> None:
    """A line of metrics: finite numbers or null, but for the stage; weights within what N samples can have."""
    for name, value in line.items():
        assert value is None or name.endswith("stage") or math.isfinite(value), (name, value)
    samples = line["samples"]
    assert line["stage"] in ("constant", "direct", "inverse")
    assert 0 < line["effective_sample_size"] <= samples * (1 + 1e-9)
    assert 1 / samples <= line["max_weight"] * (1 + 1e-9) <= 1 + 1e-6


def strict_json(text: str) -> Any:
    """Parsed as any JSON reader parses it: without NaN and infinities."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)
