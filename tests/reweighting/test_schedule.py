import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.errors import ConfigError
from presence_ds.reweighting import ScheduleConfig, TemperatureSchedule


@given(switch=st.integers(0, 50), step=st.integers(1, 60))
def test_direct_up_to_and_including_the_switch_step(switch: int, step: int) -> None:
    """Equation 10, steps counted from 1."""
    schedule = TemperatureSchedule(ScheduleConfig(switch_step=switch, tau_direct=2.0, tau_inverse=-0.5))
    assert schedule.tau(step) == (2.0 if step <= switch else -0.5)
    assert schedule.stage(step) == ("direct" if step <= switch else "inverse")


def test_the_switch_may_be_a_fraction_of_training() -> None:
    assert TemperatureSchedule(ScheduleConfig(switch_fraction=0.25, training_steps=40)).switch_step == 10
    assert TemperatureSchedule(ScheduleConfig(training_steps=1_000_000)).switch_step == 100_000  # the paper's


def test_constant_never_switches() -> None:
    schedule = TemperatureSchedule(ScheduleConfig(kind="constant", tau_direct=-1.0))
    assert {schedule.tau(step) for step in (1, 10, 10_000)} == {-1.0}
    assert schedule.stage(7) == "constant"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"switch_step": 11, "training_steps": 10}, r"s\.switch_step is 11, beyond the end of training: .* at most 10"),
        ({"switch_step": -1}, r"s\.switch_step is -1: it must be 0 or more"),
        ({"switch_step": 1, "switch_fraction": 0.1}, r"s\.switch_step and s\.switch_fraction are both set"),
        ({"switch_fraction": 1.5, "training_steps": 10}, r"s\.switch_fraction is 1\.5: it must be between 0 and 1"),
        ({"switch_fraction": 0.5}, r"s\.training_steps is not set"),
        ({}, r"s\.training_steps is not set"),
        ({"kind": "constant", "tau_direct": float("nan")}, r"s\.tau_direct is nan: it must be a finite number"),
        ({"switch_step": 1, "tau_inverse": -1000.0}, r"s\.tau_inverse is -1000\.0"),
        ({"kind": "constant", "training_steps": 0}, r"s\.training_steps is 0: it must be at least 1"),
    ],
)
def test_values_that_cannot_be_used_are_named(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        ScheduleConfig(**fields).validate("s")
