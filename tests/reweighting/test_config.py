import math
from typing import Any

import pytest

from presence_ds.errors import ConfigError
from presence_ds.reweighting import ReweightingConfig, ScheduleConfig, WeightingConfig, check_comparable, check_running

CLIP = WeightingConfig(kind="clip")
NO_SWITCH = ScheduleConfig(switch_fraction=0.5)  # training_steps is missing


def config(**fields: Any) -> ReweightingConfig:
    return ReweightingConfig(**({"preset": "paper", "schedule": ScheduleConfig(kind="constant")} | fields))


def clip(**fields: Any) -> dict[str, Any]:
    """Preset clip, and nothing but ``fields``."""
    return {"preset": "clip", "schedule": ScheduleConfig()} | fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"damping": 0.0}, r"p\.damping is 0\.0: it must be at least 1e-06"),
        ({"damping": float("nan")}, r"p\.damping is nan: it must be at least 1e-06 and finite"),
        ({"near_duplicates": 0.0}, r"p\.near_duplicates is 0\.0: it must be above 0 and at most 1, or null"),
        ({"near_duplicates": 1.1}, r"p\.near_duplicates is 1\.1"),
        ({"min_effective_share": 1.0}, r"p\.min_effective_share is 1\.0: it must be above 0 and below 1, or null"),
        ({"min_effective_share": 0.0}, r"p\.min_effective_share is 0\.0"),
        (
            {"weighting": WeightingConfig(threshold=-0.1)},
            r"p\.weighting\.threshold is -0\.1: it must be at least 0",
        ),
        ({"weighting": WeightingConfig(kind="clip", quantile=0.0)}, r"p\.weighting\.quantile is 0\.0: .* above 0"),
        ({"weighting": WeightingConfig(quantile=1.5)}, r"p\.weighting\.quantile is 1\.5"),
        ({"weighting": CLIP, "signal": "loss"}, r"p\.signal is loss with weighting kind clip.* or signal self_inf"),
        ({"weighting": CLIP, "signal": "leverage"}, r"p\.signal is leverage with weighting kind clip.*kind softmax or"),
        ({"weighting": CLIP, "min_effective_share": 0.5}, r"p\.min_effective_share is 0\.5 with weighting kind clip"),
        ({"normalizer": "log_zscore", "signal": "alignment"}, r"p\.normalizer is log_zscore .*: use zscore or rank"),
        ({"damping": 0.5}, r"p\.damping is 0\.5 with signal self_influence: it is for leverage alone"),
        (
            {"schedule": ScheduleConfig(tau_direct=math.nan)},
            r"p\.schedule\.tau_direct is nan: it must be at least -100",
        ),
        (
            {"schedule": ScheduleConfig(switch_step=-1)},
            r"p\.schedule\.switch_step is -1: it must be at least 0, or null",
        ),
        ({"schedule": NO_SWITCH}, r"p\.schedule\.training_steps is not set"),
        (
            {"weighting": WeightingConfig(quantile=0.9)},
            r"p\.weighting\.quantile is 0\.9 with preset paper.*\.kind clip",
        ),
        ({"weighting": WeightingConfig("softmax", threshold=1.0)}, r"p\.weighting\.threshold is 1\.0 .* saturating"),
        ({"weighting": CLIP}, r"p\.schedule\.kind is constant with weighting kind clip.*kind softmax or saturating"),
        (clip(weighting=WeightingConfig(threshold=1.0)), r"p\.weighting\.threshold is 1\.0 with preset clip"),
        (clip(schedule=ScheduleConfig(tau_direct=2.0)), r"p\.schedule\.tau_direct is 2\.0 with preset clip, .*paper"),
        (clip(schedule=ScheduleConfig(training_steps=9)), r"p\.schedule\.training_steps is 9 .*use p\.preset paper"),
        (clip(normalizer="rank"), r"p\.normalizer is rank with preset clip, .*use p\.preset paper, or leave it out"),
        (clip(min_effective_share=0.5), r"p\.min_effective_share is 0\.5 with preset clip, .*use p\.preset paper"),
        (clip(signal="loss"), r"p\.signal is loss with preset clip, .*use p\.preset paper, or signal self_influence"),
        (clip(signal="alignment"), r"p\.signal is alignment with preset clip, .*use p\.preset paper"),
        (clip(signal="uniform", normalizer="rank"), r"p\.normalizer is rank with preset clip"),
    ],
)
def test_values_that_cannot_be_used_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as raised:
        config(**fields).validate("p")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        clip(),
        clip(signal="uniform"),  # the baseline of such a recipe
        clip(weighting=WeightingConfig(quantile=0.9)),
        clip(weighting=CLIP, near_duplicates=0.9),
        {"preset": "clip", "weighting": WeightingConfig("saturating", threshold=1.0)},  # one field overrides it
        {"weighting": CLIP, "schedule": ScheduleConfig()},
        {"damping": 0.5, "signal": "uniform"},  # the baseline of a recipe with leverage
        {"normalizer": "rank", "signal": "alignment", "min_effective_share": 0.5, "near_duplicates": 1.0},
    ],
)
def test_what_can_be_had_passes(fields: dict[str, Any]) -> None:
    config(**fields).validate("p")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalizer": "rank"}, "normalizer is rank"),
        ({"signal": "leverage"}, "signal is leverage"),
        ({"signal": "alignment"}, "signal is alignment"),
        ({"min_effective_share": 0.5}, r"min_effective_share is 0\.5"),
    ],
)
def test_what_needs_the_whole_step_cannot_be_had_with_running_statistics(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^p\.{message}, .*strategy two_pass, or gradient_accumulation_steps 1"):
        check_running(config(**fields), "p")
    check_running(config(**(fields | {"signal": "uniform"})), "p")


def test_the_rest_can_be_had_with_running_statistics() -> None:
    for signal in ("self_influence", "loss"):
        for normalizer in ("zscore", "log_zscore"):
            check_running(config(signal=signal, normalizer=normalizer, near_duplicates=0.9), "p")
    check_running(config(**clip()), "p")


@pytest.mark.parametrize(
    ("fields", "preset"),
    [
        ({}, "calibrated"),
        ({"signal": "uniform"}, "calibrated"),
        ({"near_duplicates": 0.9}, "calibrated"),
        ({"weighting": WeightingConfig(placebo=True)}, "calibrated"),
        ({"alignment": False}, "clip"),
        ({"weighting": WeightingConfig(quantile=0.7)}, "clip"),
        ({"schedule": ScheduleConfig(switch_step=10)}, "paper"),
        ({"schedule": ScheduleConfig(kind="constant", tau_direct=-1.0)}, "paper"),
        ({"normalizer": "rank"}, "paper"),
        ({"min_effective_share": 0.5}, "paper"),
        ({"signal": "loss"}, "paper"),
    ],
)
def test_without_a_preset_it_is_what_goes_with_the_rest(fields: dict[str, Any], preset: str) -> None:
    """Sections of before there were presets state a schedule, and go on to mean what they meant."""
    found = ReweightingConfig(**fields)
    assert found.chosen_preset == preset
    assert found.weighting_kind == {"paper": "softmax"}.get(preset, preset)
    if found.schedule.kind == "two_stage" and preset == "paper" and "schedule" not in fields:
        found.schedule.switch_step = 1
    found.validate("p")


def test_a_preset_says_what_is_not_stated() -> None:
    assert [ReweightingConfig().weighting_kind, ReweightingConfig("paper").weighting_kind] == ["calibrated", "softmax"]
    for preset in ("clip", "paper", "calibrated", "uniform"):
        assert ReweightingConfig(preset, weighting=WeightingConfig("saturating")).weighting_kind == "saturating"


@pytest.mark.parametrize(
    ("fields", "samples", "k", "message"),
    [
        (
            {"signal": "leverage"},
            20_000,
            91,
            r"p\.projection_dim is 91 with signal leverage.*8,281 equations.*most 90$",
        ),
        ({"signal": "leverage"}, 6, 100, r"p\.projection_dim is 100 with signal leverage.*10,000 equations.*most 90$"),
        ({"near_duplicates": 0.9}, 6, 10_000, r"p\.projection_dim is 10000 .*gathers 6 samples of 100,000,000 .*9459$"),
        ({"near_duplicates": 0.9}, 1_000_000, 32, r"p\.projection_dim is 32 with near_duplicates 0\.9.*at most 23$"),
        ({"near_duplicates": 0.9}, 8_000_000, 32, r"p\.projection_dim is 32 .*gathers 8,000,000 samples.*at most 8$"),
    ],
)
def test_more_than_a_rank_can_compare_is_refused(fields: dict[str, Any], samples: int, k: int, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as raised:
        check_comparable(config(**fields), samples, k**2, "p")
    assert "\n" not in str(raised.value)
    advised = int(str(raised.value).split()[-1])
    check_comparable(config(**fields), samples, advised**2, "p")


@pytest.mark.parametrize("fields", [{"signal": "leverage"}, {"near_duplicates": 0.9}, {"signal": "alignment"}, {}])
def test_what_a_rank_can_compare_is_not(fields: dict[str, Any]) -> None:
    for samples, k in ((64, 32), (500_000, 32), (8192, 90), (6, 90)):
        check_comparable(config(**fields), samples, k**2, "p")
    if fields.get("signal") != "leverage" and "near_duplicates" not in fields:
        check_comparable(config(**fields), 10**8, 10**8, "p")
