"""Recipes of runs side by side: what groups them, what sets groups apart, and how samples are weighted, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from presence_ds.engine.config import PresenceConfig
from presence_ds.errors import ConfigError
from presence_ds.reweighting.config import PRESETS
from presence_ds.trainer.report.figures import Difference

Configuration = Mapping[str, Any]  # by names such as "optimizer.lr"
# Sections and fields that do not change what is learned; what prepared data is made of stands in the fields beside it.
APART = (
    "run_dir",
    "data.prepared",
    "wandb",
    "logging",
    "checkpoint",
    "stop",
    "health",
    "anomalies",
    "profiler",
    "tensorboard",
    "trackio",
)
WORDS = {
    "clip": "gradients clipped at quantile {quantile} of their norms",
    "normalized": "every gradient at the same norm",
    "calibrated": "calibrated weights",
    "softmax": "softmax weights of the {normalizer}, {schedule}",
    "saturating": "saturating weights of the {normalizer}, {schedule}",
}


def read_configuration(recipe: Path) -> dict[str, Any]:
    """Fields of the file ``recipe``, flat; lists as JSON. Empty where it cannot be read."""
    try:
        found = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return _flat(found) if isinstance(found, dict) else {}


def _flat(section: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and value - value == 0):
            flat[f"{prefix}{name}"] = value
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, default=str, ensure_ascii=False)
    return flat


def is_seed(name: str) -> bool:
    """Whether a field is a seed."""
    return name.rsplit(".", 1)[-1] == "seed"


def seeds_of(configuration: Configuration) -> tuple[Any, ...]:
    """All seeds of a run, by which it is paired with one of another group."""
    return tuple(value for name, value in sorted(configuration.items()) if is_seed(name))


def grouped(configurations: Sequence[Configuration]) -> list[list[int]]:
    """Places of runs alike but for seeds and what does not change learning; a run without a recipe is alone."""
    groups: dict[Any, list[int]] = {}
    for place, configuration in enumerate(configurations):
        rest = {name: value for name, value in configuration.items() if not is_seed(name) and not is_apart(name)}
        key = json.dumps(rest, sort_keys=True, default=str) if configuration else place
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def is_apart(name: str) -> bool:
    """Whether a field does not change what is learned."""
    return name in APART or name.split(".", 1)[0] in APART


def differences(configurations: Sequence[Configuration]) -> list[Difference]:
    """Fields in which runs are not alike, but for the run directory; those that matter for learning first."""
    names = list(dict.fromkeys(name for configuration in configurations for name in configuration))
    found = []
    for name in names:
        values = [configuration.get(name) for configuration in configurations]
        if name != "run_dir" and any(type(value) is not type(values[0]) or value != values[0] for value in values):
            found.append(Difference(name, values, is_seed(name)))
    return sorted(found, key=lambda one: (one.is_seed, is_apart(one.field), not one.field.startswith("presence.")))


def group_names(configurations: Sequence[Configuration]) -> list[str]:
    """Of groups, by one configuration of each: their weights, and what else sets them apart."""
    apart = [one for one in differences(configurations) if not one.is_seed and not is_apart(one.field)]
    others = [one for one in apart if not one.field.startswith("presence.")][:3]
    names = []
    for place, configuration in enumerate(configurations):
        parts = [f"{one.field.rsplit('.', 1)[-1]} {_said(one.values[place])}" for one in others]
        names.append(", ".join([weights_in_words(configuration), *parts]))
    for one in apart:
        names = names if one in others else _told_apart(names, one)
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _told_apart(names: Sequence[str], field: Difference) -> list[str]:
    """Names with the value of a field, where those of one name have several."""
    values: dict[str, set[str]] = {}
    for name, value in zip(names, field.values, strict=True):
        values.setdefault(name, set()).add(_said(value))
    what = field.field.rsplit(".", 1)[-1]
    return [
        f"{name}, {what} {_said(value)}" if len(values[name]) > 1 else name
        for name, value in zip(names, field.values, strict=True)
    ]


def _said(value: Any) -> str:
    text = "not stated" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    text = text.strip("[]").replace('"', "")  # of a list
    return text if len(text) <= 60 else text[:59] + "…"


def is_uniform(configuration: Configuration) -> bool:
    """Whether all samples have the same weight."""
    return "uniform" in (configuration.get("presence.signal"), _kind(configuration))


def weights_in_words(configuration: Configuration) -> str:
    """How samples are weighted, in a few words."""
    if not configuration:
        return "no recipe"
    if is_uniform(configuration):
        return "uniform weights"
    kind = _kind(configuration)
    schedule = f"τ {_said(configuration.get('presence.schedule.tau_direct'))}"
    if configuration.get("presence.schedule.kind") != "constant":
        schedule += f" to {_said(configuration.get('presence.schedule.tau_inverse'))}"
    words = WORDS.get(kind, kind).format(
        quantile=_said(configuration.get("presence.weighting.quantile")),
        normalizer=_said(configuration.get("presence.normalizer")),
        schedule=schedule,
    )
    placebo = configuration.get("presence.weighting.placebo") is True
    return words + (", permuted (placebo)" if placebo else "")


def _kind(configuration: Configuration) -> str:
    stated = configuration.get("presence.weighting.kind")
    preset = configuration.get("presence.preset")
    if isinstance(stated, str):
        return stated
    if isinstance(preset, str):
        return PRESETS.get(preset, "weights")  # type: ignore[call-overload]
    try:
        return PresenceConfig.from_mapping(_section(configuration, "presence.")).weighting_kind
    except (ConfigError, ValueError):  # of another version, or edited since
        return "weights"


def _section(configuration: Configuration, prefix: str) -> dict[str, Any]:
    """Fields by their names without ``prefix``, as the recipe has them."""
    found: dict[str, Any] = {}
    for name, value in configuration.items():
        if name.startswith(prefix):
            *sections, last = name.removeprefix(prefix).split(".")
            section = found
            for one in sections:
                section = section.setdefault(one, {})
            section[last] = json.loads(value) if isinstance(value, str) and value.startswith(("[", "{")) else value
    return found
