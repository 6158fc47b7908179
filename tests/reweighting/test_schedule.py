import json
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.errors import ConfigError
from presence_ds.reweighting import ReweightingConfig, ScheduleConfig, TemperatureSchedule
from presence_ds.reweighting.schedule import Slowdown


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
        (
            {"switch_step": 11, "training_steps": 10},
            r"p\.schedule\.switch_step is 11, beyond the end of training: .* at most 10",
        ),
        ({"switch_step": -1}, r"p\.schedule\.switch_step is -1: it must be at least 0"),
        (
            {"switch_step": 1, "switch_fraction": 0.1},
            r"p\.schedule\.switch_step and p\.schedule\.switch_fraction are both set",
        ),
        (
            {"switch_fraction": 1.5, "training_steps": 10},
            r"p\.schedule\.switch_fraction is 1\.5: it must be at least 0 and at most 1",
        ),
        ({"switch_fraction": 0.5}, r"p\.schedule\.training_steps is not set"),
        ({}, r"p\.schedule\.training_steps is not set"),
        (
            {"kind": "constant", "tau_direct": float("nan")},
            r"p\.schedule\.tau_direct is nan: it must be at least -100\.0 and at most 100\.0",
        ),
        ({"switch_step": 1, "tau_inverse": -1000.0}, r"p\.schedule\.tau_inverse is -1000\.0"),
        ({"kind": "constant", "training_steps": 0}, r"p\.schedule\.training_steps is 0: it must be at least 1"),
        (
            {"kind": "constant", "tau_inverse": -2.0},
            r"p\.schedule\.tau_inverse is -2\.0 with kind constant, which has no use for",
        ),
        (
            {"kind": "constant", "switch_step": 3},
            r"p\.schedule\.switch_step is 3 with kind constant.*use kind two_stage or auto",
        ),
        ({"kind": "linear", "switch_fraction": 0.5}, r"p\.schedule\.switch_fraction is 0\.5 with kind linear"),
        (
            {"switch_step": 3, "earliest_step": 2},
            r"p\.schedule\.earliest_step is 2 with kind two_stage.*, or use kind auto",
        ),
        ({"kind": "linear"}, r"p\.schedule\.training_steps is not set: kind linear needs the number"),
        ({"kind": "cosine"}, r"p\.schedule\.training_steps is not set: kind cosine"),
        ({"kind": "auto", "switch_step": 5}, r"p\.schedule\.training_steps is not set: kind auto"),
        ({"kind": "auto", "training_steps": 9, "switch_step": 10}, r"p\.schedule\.switch_step is 10, beyond the end"),
        (
            {"kind": "auto", "training_steps": 9, "slowdown_share": 1.0},
            r"p\.schedule\.slowdown_share is 1\.0: it must be above 0 and below 1",
        ),
        (
            {"kind": "auto", "training_steps": 9, "slowdown_window": 9},
            r"p\.schedule\.slowdown_window is 9: .* at least 10",
        ),
        (
            {"kind": "auto", "training_steps": 9, "earliest_step": 0},
            r"p\.schedule\.earliest_step is 0: it must be at least 1",
        ),
        (
            {"kind": "auto", "training_steps": 100, "earliest_step": 51},
            r"p\.schedule\.earliest_step is 51: it must not be after the latest switch step, 50",
        ),
    ],
)
def test_values_that_cannot_be_used_are_named(fields: dict[str, float], message: str) -> None:
    config = ReweightingConfig("paper", schedule=ScheduleConfig(**fields))
    with pytest.raises(ConfigError, match=f"^{message}"):
        config.validate("p")


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@given(total=st.integers(1, 60), direct=st.floats(-2, 2), inverse=st.floats(-2, 2))
def test_continuous_schedules_go_from_end_to_end(kind: str, total: int, direct: float, inverse: float) -> None:
    config = ScheduleConfig(kind=kind, tau_direct=direct, tau_inverse=inverse, training_steps=total)
    config.validate("s")
    schedule = TemperatureSchedule(config)
    found = [schedule.tau(step) for step in range(1, total + 1)]
    share = np.linspace(0, 1, total)
    if kind == "cosine":
        share = np.sin(np.pi * share / 2) ** 2
    np.testing.assert_allclose(found, direct + (inverse - direct) * share, atol=1e-12)
    assert schedule.tau(total + 5) == (found[-1] if total > 1 else inverse)
    stages = [schedule.stage(step) for step in range(1, total + 1)]
    assert stages == ["direct" if p <= 0.5 else "inverse" for p in share.round(12)]
    assert schedule.switch_step == stages.count("direct")


def noise(size: float, seed: int) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: generator.gauss(0.0, size)


def switch(
    curve: Callable[[float], float], total: int = 2000, size: float = 0.05, seed: int = 0, **fields: float
) -> int:
    """Step after which auto switches on the noisy losses ``curve(step / total)``."""
    config = ScheduleConfig(kind="auto", training_steps=total, **fields)
    config.validate("s")
    schedule, sample = TemperatureSchedule(config), noise(size, seed)
    for step in range(1, total + 1):
        assert schedule.stage(step) == ("direct" if schedule.switch_step is None else "inverse")
        assert schedule.tau(step) == (1.0 if schedule.switch_step is None else -1.0)
        schedule.observe(step, curve(step / total) + sample())
    assert schedule.switch_step is not None
    return schedule.switch_step


@pytest.mark.parametrize("seed", range(3))
def test_auto_switches_soon_after_an_exponential_has_slowed_to_the_share(seed: int) -> None:
    """7·exp(−t/0.05): its fall is a tenth of that at t = 0.03, where it can first be seen, at t = 0.03 + 0.05·ln 10."""
    found = switch(lambda t: 3 + 7 * math.exp(-t / 0.05), seed=seed) / 2000
    slow = 0.03 + 0.05 * math.log(10)
    assert slow < found < slow + 0.1
    assert switch(lambda t: 3 + 7 * math.exp(-t / 0.05), seed=seed, slowdown_share=0.5) / 2000 < found - 0.04


@pytest.mark.parametrize("total", [1000, 4000])
def test_auto_waits_out_a_warm_up_and_a_single_bad_step(total: int) -> None:
    def power_law(t: float) -> float:
        return 3 + 8 * (1 + 200 * t) ** -0.5

    def after_warm_up(t: float) -> float:
        return power_law(max(t - 0.1, 0.0))

    plain = switch(power_law, total)
    assert 0.08 * total < plain < 0.4 * total
    assert switch(after_warm_up, total) > 0.16 * total  # 11 nats from start to 0.1: flat, not slow
    spike = round(0.06 * total) / total
    assert abs(switch(lambda t: power_law(t) + 4.0 * (t == spike), total) - plain) < 0.08 * total


@pytest.mark.parametrize(
    "curve", [lambda t: 4.0, lambda t: 8 - 4 * t, lambda t: 4 + t], ids=["flat", "steady fall", "rise"]
)
def test_auto_without_a_slowdown_switches_at_the_latest_step(curve: Callable[[float], float]) -> None:
    for seed in range(3):
        assert switch(curve, seed=seed) == 1000
        assert switch(curve, seed=seed, switch_step=700) == 700
        assert switch(curve, seed=seed, switch_fraction=0.3) == 600


@pytest.mark.parametrize("loss", [0.1, 4.7, 1e6])
def test_rounding_is_no_slowdown(loss: float) -> None:
    assert switch(lambda t: loss, size=0.0) == 1000


def test_auto_keeps_between_its_bounds() -> None:
    def curve(t: float) -> float:
        return 3 + 7 * math.exp(-t / 0.05)

    assert switch(curve, earliest_step=800) == 800
    assert switch(curve, switch_step=50) == 50
    assert switch(lambda t: 4.0, total=30) == 15


@given(factor=st.sampled_from([2.0**-20, 2.0**20]), offset=st.sampled_from([0.0, 64.0]))
def test_auto_does_not_depend_on_the_unit_of_the_loss(factor: float, offset: float) -> None:
    def curve(t: float) -> float:
        return 3 + 7 * math.exp(-t / 0.05)

    expected = switch(curve, 500)
    assert switch(lambda t: factor * (curve(t) + offset), 500, 0.05 * factor) == expected


@given(losses=st.lists(st.floats(0, 12), min_size=20, max_size=60))
def test_the_line_is_a_weighted_least_squares_fit(losses: list[float]) -> None:
    watch = Slowdown(window=10, share=0.1)
    for loss in losses:
        watch.observe(loss)
    ages = np.arange(len(losses))[::-1].astype(float)
    weights = 0.9**ages
    shifted = np.array(losses) - losses[0]
    design = np.stack([np.ones_like(ages), ages], axis=1)
    (level, slope), *_ = np.linalg.lstsq(design * weights[:, None] ** 0.5, shifted * weights**0.5, rcond=None)
    residual = (weights * (shifted - level - slope * ages) ** 2).sum() / weights.sum()
    spread = (weights * (ages - np.average(ages, weights=weights)) ** 2).sum() / weights.sum()
    samples = weights.sum() ** 2 / (weights**2).sum()
    error = math.sqrt(residual / spread / (samples - 2))
    again = Slowdown(window=10, share=0.1)
    again.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    rate, found = again._line()
    assert rate == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert found == pytest.approx(error, rel=1e-4, abs=1e-6)


def test_auto_resumes_to_the_bit() -> None:
    config = ScheduleConfig(kind="auto", training_steps=400)
    whole, sample = TemperatureSchedule(config), noise(0.02, 1)
    losses = [3 + 7 * math.exp(-step / 20) + sample() for step in range(1, 201)]
    states = []
    for step, loss in enumerate(losses, start=1):
        states.append(json.dumps(whole.state_dict()))
        whole.observe(step, loss)
    assert whole.switch_step is not None
    assert 20 < whole.switch_step < 200
    for start in (0, 7, 40, whole.switch_step - 1, whole.switch_step, 150):
        resumed = TemperatureSchedule(config)
        resumed.load_state_dict(json.loads(states[start]))
        for step in range(start + 1, 201):
            assert resumed.state_dict() == json.loads(states[step - 1])
            resumed.observe(step, losses[step - 1])
        assert resumed.switch_step == whole.switch_step
    for kind in ("two_stage", "constant", "linear"):
        other = TemperatureSchedule(ScheduleConfig(kind=kind, training_steps=400))
        assert other.state_dict() == {}
        TemperatureSchedule(config).load_state_dict(other.state_dict())
        before = other.switch_step
        other.load_state_dict(json.loads(states[-1]))
        assert other.switch_step == before
