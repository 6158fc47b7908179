"""Samples that are left out: those that are not finite, and those without targets."""

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist

from presence_ds.errors import NonFiniteError
from tests.ranks import Ranks
from tests.reweighting.steps import (
    EVERY_KIND,
    accumulated,
    finished,
    finished_batch,
    micro_batch,
    random_batch,
    reweighting,
    take,
)

pytestmark = pytest.mark.usefixtures("one_process")


COLUMNS = [
    (fields, column)
    for fields in EVERY_KIND
    for column in ("losses", "scores", "reference_alignment", "features")
    if getattr(random_batch(fields, 6, 0), column) is not None
]


@pytest.mark.parametrize(("fields", "column"), COLUMNS, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_touches_no_other(fields: dict[str, Any], column: str, bad: float) -> None:
    batch = random_batch(fields, 6, 0)
    getattr(batch, column)[2] = bad
    result = finished_batch(fields, batch)
    kept = torch.tensor([0, 1, 3, 4, 5])
    alone = finished_batch(fields, take(batch, kept))
    assert result.local[2] == result.terms[2] == 0
    assert torch.equal(result.local[kept], alone.local)
    assert (result.statistics["nonfinite_samples"], result.statistics["samples"]) == (1, 6)
    assert result.mean_term == pytest.approx(alone.mean_term * 5 / 6)


@pytest.mark.parametrize("fields", EVERY_KIND, ids=str)
def test_a_sample_without_targets_touches_no_other(fields: dict[str, Any]) -> None:
    batch = random_batch(fields, 6, 0)
    batch.targets[2] = 0
    batch.losses[2] = 0.0
    result = finished_batch(fields, batch)
    kept = torch.tensor([0, 1, 3, 4, 5])
    alone = finished_batch(fields, take(batch, kept))
    assert result.local[2] == result.terms[2] == 0
    assert torch.equal(result.local[kept], alone.local)
    figures = ("loss", "weighted_loss", "effective_sample_size", "max_weight", "si_mean", "si_min", "normalizer_mean")
    for name in figures:
        assert result.statistics.get(name) == pytest.approx(alone.statistics.get(name)), name
    counts = [result.statistics[name] for name in ("samples", "nonfinite_samples", "samples_without_targets")]
    assert counts == [6, 0, 1]


@pytest.mark.parametrize("running", [False, True])
def test_a_step_without_targets_leaves_no_trace(running: bool) -> None:
    target, other = reweighting(running=running), reweighting(running=running)
    without = torch.tensor([0, 0])
    result = finished(target, [0.0, math.nan], step=4, targets=without)
    assert result.local.tolist() == [0, 0]
    assert result.mean_term == 0
    expected = {"step": 4, "samples": 2, "nonfinite_samples": 0, "samples_without_targets": 2}
    assert result.statistics == expected
    assert target.state_dict() == other.state_dict()
    with pytest.raises(NonFiniteError, match="optimizer step 5: none of the 1 samples with targets"):
        finished(target, [0.0, math.nan], step=5, targets=torch.tensor([0, 1]))
    assert torch.equal(finished(target, [1.0, 2.0, 5.0]).local, finished(other, [1.0, 2.0, 5.0]).local)


@pytest.mark.parametrize("running", [False, True])
def test_a_step_without_a_finite_sample_raises_and_the_next_one_works(running: bool) -> None:
    target, other = reweighting(running=running), reweighting(running=running)
    with pytest.raises(NonFiniteError, match="optimizer step 4: none of the 2 samples"):
        finished(target, [math.nan, math.inf], step=4)
    assert torch.equal(finished(target, [1.0, 2.0, 5.0]).local, finished(other, [1.0, 2.0, 5.0]).local)


def test_a_first_micro_step_without_a_finite_sample_waits_for_the_next() -> None:
    terms, result = accumulated(reweighting(running=True), [micro_batch([math.nan] * 2), micro_batch([1.0, 3.0])])
    assert terms.tolist()[:2] == [0, 0]
    assert result.local.tolist()[:2] == [0, 0]
    torch.testing.assert_close(result.local[2:], torch.softmax(torch.tensor([-1.0, 1.0]), 0))


def a_step_without_a_finite_sample_on_one_rank() -> Any:
    """Runs on every rank of a pool."""
    target = reweighting(running=True)
    bad = [math.nan, math.nan]
    _, result = accumulated(target, [micro_batch(bad if dist.get_rank() == 0 else [1.0, 2.0])] * 2)
    try:
        accumulated(target, [micro_batch(bad)] * 2, step=2)
    except NonFiniteError as error:
        return result.local, str(error)
    return result.local, None


def test_ranks_agree_on_what_is_not_finite(two_ranks: Ranks) -> None:
    (first, error), (second, other_error) = two_ranks.run(a_step_without_a_finite_sample_on_one_rank)
    assert first.tolist() == [0.0] * 4
    assert second.double().sum().item() == pytest.approx(1)
    assert error == other_error
    assert "optimizer step 2: none of the 8 samples" in error
