"""The presence section: field names that stay, and one line for every mistake."""

from typing import Any

import pytest

from presence_ds import PresenceConfig
from presence_ds.errors import ConfigError


def test_every_field_of_a_section_arrives() -> None:
    section = {
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
        ({"estimator": "roughly"}, "presence.estimator.*exact.*projected.*roughly"),
        ({"strategy": "two_pass"}, "presence.strategy.*one_pass.*two_pass"),
        ({"signal": "age"}, "presence.signal.*age"),
        ({"statistics": "none"}, "presence.statistics.*none"),
        ({"granularity": "epoch"}, "presence.granularity.*epoch"),
        ({"layers": "last"}, 'presence.layers is "last": it must be "all", "first" or a list'),
        ({"layers": []}, "presence.layers is empty"),
        ({"schedule": {"kind": "sometimes"}}, "presence.schedule.kind.*sometimes"),
        ({"schedule": {"swich_step": 1}}, "schedule.swich_step"),
        ({"schedule": 3}, "schedule"),
        ({"schedule": {"switch_step": 5, "training_steps": 4}}, "presence.schedule.switch_step is 5, beyond the end"),
    ],
)  # fmt: skip
def test_a_wrong_section_gets_one_line_that_names_the_field(section: dict[str, Any], message: str) -> None:
    defaults = {"schedule": {"kind": "constant"}}
    with pytest.raises(ConfigError, match=message) as caught:
        PresenceConfig.from_mapping(defaults | section).validate()
    assert "\n" not in str(caught.value)
