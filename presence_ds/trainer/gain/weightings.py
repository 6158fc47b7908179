"""Weightings to compare, in the language of a recipe's presence section."""

from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from presence_ds.errors import ConfigError
from presence_ds.reweighting import ReweightingConfig
from presence_ds.reweighting.value.gain import COMPARED
from presence_ds.reweighting.value.worth import IN_USE
from presence_ds.sections import check_shape

RECORDED = ("self_influence", "loss", "alignment", "uniform")  # signals that score records hold the values of


def read_weightings(sections: Mapping[str, Any], field: str = "weights") -> dict[str, ReweightingConfig]:
    """Those of ``sections`` by their names, each as parsed YAML; `COMPARED` first.

    Raises:
        ConfigError: naming the first field under ``field`` that cannot be used, or that score records cannot tell of.
    """
    found = dict(COMPARED)
    for name, section in sections.items():
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise ConfigError(f"{field} has a name {name!r}: names of weights are text in one line")
        if name in (*COMPARED, IN_USE):
            raise ConfigError(f"{field}.{name} has the name of weights that are always compared: choose another")
        found[name] = _read(section, f"{field}.{name}")
    return found


def _read(section: Any, field: str) -> ReweightingConfig:
    check_shape(section, ReweightingConfig, field)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--weights", type=ReweightingConfig)
    try:
        config = parser.instantiate(parser.parse_object({"weights": dict(section)})).weights
    except ArgumentError as error:
        raise ConfigError(f"{field}: {' '.join(str(error).split())}") from None
    assert isinstance(config, ReweightingConfig)
    _check_recorded(config, field)
    config.validate(field)
    return config


def _check_recorded(config: ReweightingConfig, field: str) -> None:
    """Raise `ConfigError` for what score records cannot tell of, and for what has no effect on weights."""
    if config.signal not in RECORDED:
        raise ConfigError(
            f"{field}.signal is {config.signal}, which score records do not hold: it must be {' or '.join(RECORDED)}"
        )
    if config.has_temperature and config.signal != "uniform" and config.schedule.kind != "constant":
        raise ConfigError(
            f"{field}.schedule.kind is {config.schedule.kind}, a temperature that changes over the steps: use kind "
            f"constant with the tau_direct to compare"
        )
    if config.calibrates and "length" in config.weighting.features:
        raise ConfigError(
            f"{field}.weighting.features is {config.weighting.features}: score records do not hold the length"
        )
    if config.weighting.placebo:
        raise ConfigError(f"{field}.weighting.placebo is true, and what is worth nothing need not be compared")
    if config.alignment_with != "step":
        raise ConfigError(f"{field}.alignment_with is {config.alignment_with}: it is for all weights, --alignment_with")
    for name in ("min_effective_share", "near_duplicates", "alignment"):
        if getattr(config, name) is not None:
            raise ConfigError(f"{field}.{name} is {getattr(config, name)}, which is for training alone: leave it out")
