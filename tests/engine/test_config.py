"""The presence section: field names that stay, and one line for every mistake."""

from typing import Any

import pytest

from presence_ds import PresenceConfig
from presence_ds.engine.checks import check_settings
from presence_ds.errors import ConfigError


def test_every_field_of_a_section_arrives() -> None:
    section = {
        "preset": "paper",
        "layers": ["model.layers.0.*"],
        "estimator": "exact",
        "projection_dim": 8,
        "normalizer": "zscore",
        "statistics": "running",
        "schedule": {"kind": "two_stage", "tau_direct": 2, "tau_inverse": -0.5, "switch_step": 7},
        "strategy": "one_pass",
        "signal": "uniform",
        "granularity": "sample",
    }
    config = PresenceConfig.from_mapping(section)
    config.validate()
    for name, value in section.items():
        if name != "schedule":
            assert getattr(config, name) == value
    assert (config.schedule.kind, config.schedule.tau_direct, config.schedule.tau_inverse) == ("two_stage", 2.0, -0.5)
    assert config.schedule.switch_step == 7


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"projecton_dim": 8}, "projecton_dim"),
        ({"projection_dim": "many"}, 'presence.projection_dim.*Expected.*int.*many'),
        ({"projection_dim": 2.5}, "presence.projection_dim.*2.5"),
        ({"projection_dim": 0}, "presence.projection_dim is 0: it must be at least 1"),
        ({"preset": "papers"}, "presence.preset.*clip.*paper.*papers"),
        ({"preset": "clip"}, "presence.schedule.kind is constant with preset clip.*use presence.preset paper"),
        ({"estimator": "roughly"}, "presence.estimator.*exact.*projected.*roughly"),
        ({"strategy": "three_pass"}, "presence.strategy.*one_pass.*two_pass.*three_pass"),
        ({"strategy": "two_pass", "statistics": "running"}, "presence.statistics is running with strategy two_pass"),
        ({"normalizer": "median"}, "presence.normalizer.*median"),
        ({"loss_normalizer": 0.0}, "presence.loss_normalizer is 0.0: it must be above 0"),
        ({"loss_normalizer": "mean"}, "presence.loss_normalizer.*mean"),
        ({"weighting": {"kind": "step"}}, "presence.weighting.kind.*step"),
        ({"weighting": "clip"}, "presence.weighting is 'clip': it must be a section with fields such as kind"),
        ({"weighting": {"kind": "clip"}, "signal": "loss"}, "presence.signal is loss with weighting kind clip"),
        ({"weighting": {"quantile": 0}}, "presence.weighting.quantile is 0"),
        ({"signal": "leverage", "estimator": "exact"}, "presence.estimator is exact and signal is leverage"),
        ({"signal": "alignment", "granularity": "microbatch"}, "granularity is microbatch and signal is alignment"),
        ({"signal": "loss", "near_duplicates": 0.9}, "presence.near_duplicates is set with signal loss"),
        ({"near_duplicates": 0.9, "estimator": "exact"}, "presence.estimator is exact and near_duplicates is set"),
        ({"signal": "loss", "granularity": "microbatch"}, "presence.granularity is microbatch with signal loss"),
        ({"reference_decay": 1.0}, "presence.reference_decay is 1.0: it must be at least 0 and below 1"),
        ({"reference_decay": 0.5}, "presence.reference_decay is 0.5 with signal self_influence: it is for signal"),
        ({"damping": 0.0}, "presence.damping is 0.0"),
        ({"min_effective_share": 1.5}, "presence.min_effective_share is 1.5"),
        ({"signal": "age"}, "presence.signal.*age"),
        ({"statistics": "none"}, "presence.statistics.*none"),
        ({"granularity": "epoch"}, "presence.granularity.*epoch"),
        ({"layers": "last"}, 'presence.layers is "last": it must be "all", "first" or a list'),
        ({"layers": []}, "presence.layers is empty"),
        ({"schedule": {"kind": "sometimes"}}, "presence.schedule.kind.*sometimes"),
        ({"schedule": {"swich_step": 1}}, "schedule.swich_step"),
        ({"schedule": 3}, "presence.schedule is 3: it must be a section with fields such as kind"),
        ({"projection_dim": None}, "presence.projection_dim is null: give it a value, or leave it out"),
        ({"schedule": {"switch_step": 5, "training_steps": 4}}, "presence.schedule.switch_step is 5, beyond the end"),
    ],
)  # fmt: skip
def test_a_wrong_section_gets_one_line_that_names_the_field(section: dict[str, Any], message: str) -> None:
    defaults = {"preset": "paper", "schedule": {"kind": "constant"}}
    with pytest.raises(ConfigError, match=message) as caught:
        PresenceConfig.from_mapping(defaults | section).validate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "accumulation_steps", "message"),
    [
        ({"statistics": "batch"}, 2, "presence.statistics is batch with gradient_accumulation_steps 2"),
        ({"normalizer": "rank"}, 2, "presence.normalizer is rank.*two_pass"),
        ({"signal": "leverage"}, 2, "presence.signal is leverage.*two_pass"),
        ({"signal": "alignment"}, 2, "presence.signal is alignment.*two_pass"),
        ({"min_effective_share": 0.5}, 2, "presence.min_effective_share is 0.5.*two_pass"),
        ({"granularity": "global_microbatch"}, 1, "presence.granularity is global_microbatch with .* 1"),
    ],
)
def test_what_needs_all_scores_first_is_refused_where_they_come_late(
    section: dict[str, Any], accumulation_steps: int, message: str
) -> None:
    config = PresenceConfig.from_mapping({"preset": "paper", "schedule": {"kind": "constant"}} | section)
    config.validate()
    with pytest.raises(ConfigError, match=message) as caught:
        config.uses_running_statistics(accumulation_steps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", [{"normalizer": "rank"}, {"signal": "leverage"}, {"min_effective_share": 0.5}])
def test_with_two_passes_all_scores_come_first(section: dict[str, Any]) -> None:
    defaults = {"preset": "paper", "strategy": "two_pass", "schedule": {"kind": "constant"}}
    config = PresenceConfig.from_mapping(defaults | section)
    config.validate()
    assert not config.uses_running_statistics(4)


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        (2, {"prescale_gradients": True}, "prescale_gradients is true with zero_optimization.stage 2"),
        (3, {"prescale_gradients": True}, "prescale_gradients is true with zero_optimization.stage 3"),
        (2, {"gradient_predivide_factor": 2.0}, "gradient_predivide_factor is 2.0 with zero_optimization.stage 2"),
        (3, {"gradient_predivide_factor": 2, "reduce_scatter": False}, "gradient_predivide_factor is 2 with zero_"),
        (0, {"gradient_predivide_factor": 0}, "gradient_predivide_factor is 0: it must be a finite number above 0"),
        (1, {"gradient_predivide_factor": "two"}, "gradient_predivide_factor is two"),
        (1, {"gradient_allreduce_op": "sum"}, 'gradient_allreduce_op is "sum"'),
        (0, {"prescale_gradients": True, "gradient_predivide_factor": 8.0}, None),
        (1, {"prescale_gradients": True, "gradient_predivide_factor": 8.0}, None),
        (2, {"prescale_gradients": True, "gradient_predivide_factor": 8.0, "reduce_scatter": False}, None),
        (3, {"prescale_gradients": True, "reduce_scatter": False, "communication_data_type": "bf16"}, None),
    ],
)  # fmt: skip
def test_how_deepspeed_takes_the_mean_over_ranks(stage: int, settings: dict[str, Any], message: str | None) -> None:
    """What would change the sum of the weights, or end in an assertion inside DeepSpeed, is refused at the door."""
    zero = {"stage": stage} | {name: settings[name] for name in ("reduce_scatter",) if name in settings}
    whole = {name: value for name, value in settings.items() if name not in zero} | {"zero_optimization": zero}
    if message is None:
        check_settings(whole)
        return
    with pytest.raises(ConfigError, match=message) as caught:
        check_settings(whole)
    assert "\n" not in str(caught.value)
