"""Normaliser, softmax and statistics on one rank; several ranks are compared in tests/engine."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from presence_ds.errors import NonFiniteError
from presence_ds.reweighting import Reweighting, ScheduleConfig, StepWeights, TemperatureSchedule
from presence_ds.reweighting.moments import Moments, RunningMoments
from presence_ds.reweighting.softmax import softmax_terms


@pytest.fixture(scope="module", autouse=True)
def _one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def reweighting(tau: float = 1.0, **kwargs: Any) -> Reweighting:
    schedule = TemperatureSchedule(ScheduleConfig(kind="constant", tau_direct=tau))
    return Reweighting(schedule, **({"uniform": False, "running": False, "group": None} | kwargs))


def add(target: Reweighting, scores: list[float], *, last: bool = True, step: int = 1) -> tuple[Tensor, Any]:
    values = torch.tensor(scores)
    return target.add_micro_step(values, torch.ones_like(values), torch.zeros(len(scores)).long(), step=step, last=last)


def finished(target: Reweighting, scores: list[float], step: int = 1) -> StepWeights:
    result = add(target, scores, step=step)[1]
    assert result is not None
    return result


finite_scores = st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=40)


@given(scores=finite_scores, tau=st.floats(-3, 3))
def test_equations_7_and_8(scores: list[float], tau: float) -> None:
    values = torch.tensor(scores).double()
    deviation = values.std(correction=0)
    z = (values - values.mean()) / deviation if deviation > 0 else torch.zeros_like(values)
    result = finished(reweighting(tau), scores)
    torch.testing.assert_close(result.local.double(), torch.softmax(tau * z, 0), rtol=1e-4, atol=1e-7)
    assert result.local.double().sum().item() == pytest.approx(1, abs=1e-5)


def test_equal_scores_get_equal_weights() -> None:
    assert finished(reweighting(), [0.3] * 7).local.tolist() == pytest.approx([1 / 7] * 7)


def test_uniform_ignores_the_temperature() -> None:
    result = finished(reweighting(1.0, uniform=True), [1.0, 2.0, 30.0])
    assert result.local.tolist() == pytest.approx([1 / 3] * 3)
    assert result.statistics["si_max"] == 30.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_get_weight_zero(bad: float) -> None:
    result = finished(reweighting(), [1.0, bad, 2.0])
    assert result.local.tolist() == pytest.approx([*finished(reweighting(), [1.0, 2.0]).local.tolist()[:1], 0.0,
                                                   finished(reweighting(), [1.0, 2.0]).local.tolist()[1]])  # fmt: skip
    assert result.statistics["nonfinite_samples"] == 1
    assert result.statistics["samples"] == 3


def test_a_step_without_a_finite_sample_raises() -> None:
    with pytest.raises(NonFiniteError, match="optimizer step 4: none of the 2 samples"):
        add(reweighting(), [float("nan"), float("inf")], step=4)


def test_a_first_micro_step_without_a_finite_sample_waits_for_the_next() -> None:
    target = reweighting(running=True)
    terms, _ = add(target, [float("nan")] * 2, last=False)
    assert terms.tolist() == [0, 0]
    _, result = add(target, [1.0, 3.0])
    assert result.local.tolist()[:2] == [0, 0]
    assert result.local.sum().item() == pytest.approx(1)


def test_running_statistics_are_those_of_earlier_steps() -> None:
    target = reweighting(running=True)
    steps = [[1.0, 2.0, 4.0, 9.0], [2.0, 2.5, 3.0, 8.0], [5.0, 1.0, 0.0, 2.0]]
    moments = [Moments.of(torch.tensor(scores)) for scores in steps]
    for number, scores in enumerate(steps):
        add(target, scores[:2], last=False, step=number + 1)
        _, result = add(target, scores[2:], step=number + 1)
        if number == 0:  # nothing earlier: the first micro-step
            basis = Moments.of(torch.tensor(scores[:2]))
        else:  # the last step's level, and the spread relative to the level averaged over all
            decay = torch.tensor([0.9 ** (number - 1 - i) for i in range(number)]).double()
            relative = torch.tensor([m.variance / m.mean**2 for m in moments[:number]]).double()
            level = moments[number - 1].mean
            basis = Moments(level, level**2 * ((decay * relative).sum() / decay.sum()).item())
        expected = torch.softmax(basis.normalize(torch.tensor(scores)), 0)
        torch.testing.assert_close(result.local.double(), expected, rtol=1e-5, atol=0.0)
        assert result.statistics["normalizer_mean"] == pytest.approx(basis.mean, rel=1e-6)


def test_the_terms_and_their_mean_give_the_weights() -> None:
    """What the engine relies on: w_i = u_i / (N · mean of u)."""
    target = reweighting(running=True)
    first, _ = add(target, [1.0, 5.0], last=False)
    second, result = add(target, [2.0, 0.0])
    weights = torch.cat([first, second]) / (4 * result.mean_term)
    torch.testing.assert_close(weights.float(), result.local)


def test_an_outlier_under_earlier_statistics_does_not_overflow() -> None:
    terms = softmax_terms(torch.tensor([1e30, 0.0]), torch.tensor([True, True]), Moments(0.0, 1.0), 1.0)
    assert terms.isfinite().all()
    assert terms[0] / terms.sum() > 0.999


def test_state_is_restored_to_the_bit() -> None:
    scores = [[1.0, 2.0], [4.0, 8.0], [3.0, 1.0]]
    whole, first, second = (reweighting(running=True) for _ in range(3))
    for values in scores[:2]:
        finished(whole, values)
        finished(first, values)
    second.load_state_dict(first.state_dict())
    assert torch.equal(finished(whole, scores[2]).local, finished(second, scores[2]).local)


def test_running_moments_follow_a_level_that_falls_by_orders_of_magnitude() -> None:
    running = RunningMoments()
    for level in (1e3, 1e1, 1e-1):
        running.update(Moments(level, (0.5 * level) ** 2))
    assert running.current is not None
    assert running.current.mean == pytest.approx(1e-1)
    assert running.current.std == pytest.approx(0.5e-1)


@given(scores=finite_scores)
def test_running_moments_of_one_update_are_its_own(scores: list[float]) -> None:
    moments = Moments.of(torch.tensor(scores))
    running = RunningMoments()
    running.update(moments)
    assert running.current is not None
    assert running.current.mean == pytest.approx(moments.mean)
    assert running.current.variance == pytest.approx(moments.variance, rel=1e-9, abs=1e-30)
