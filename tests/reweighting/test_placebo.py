"""Placebo: the same weights, of other samples."""

import pytest
import torch

from presence_ds.reweighting.placebo import permuted
from tests.reweighting.steps import accumulated, finished, micro_batch, reweighting

pytestmark = pytest.mark.usefixtures("one_process")

SCORES = torch.arange(1.0, 33.0)


def test_a_placebo_keeps_the_weights_and_loses_what_they_know() -> None:
    plain, placebo = reweighting(), reweighting(weighting={"placebo": True})
    inner = []
    for step in range(1, 60):
        true, false = (finished(one, SCORES, step).local for one in (plain, placebo))
        torch.testing.assert_close(false.sort().values, true.sort().values)
        inner.append(torch.corrcoef(torch.stack([true, false]))[0, 1].item())
    assert abs(sum(inner) / len(inner)) < 0.1
    assert inner[0] != inner[1]  # another order in every step
    assert finished(reweighting(weighting={"placebo": True}), SCORES, 7).local.equal(finished(placebo, SCORES, 7).local)


def test_samples_that_do_not_count_keep_their_weight_of_nothing() -> None:
    scores = SCORES.clone()
    scores[3] = torch.nan
    found = finished(reweighting(weighting={"placebo": True}), scores)
    assert found.local[3] == 0.0
    assert (found.local > 0).sum() == 31


def test_with_running_statistics_the_weights_given_on_the_way_are_those_at_the_end() -> None:
    target = reweighting(running=True, weighting={"placebo": True})
    plain = reweighting(running=True)
    for step in range(1, 4):
        batches = [micro_batch(SCORES[start::4] * step) for start in range(4)]
        (terms, result), (others, _) = accumulated(target, batches, step), accumulated(plain, batches, step)
        torch.testing.assert_close(terms, result.terms)
        assert not torch.equal(terms, others)
        for block, other in zip(terms.split(8), others.split(8), strict=True):
            torch.testing.assert_close(block.sort().values, other.sort().values)


def test_every_place_has_an_order_of_its_own() -> None:
    terms, counted = torch.arange(20.0), torch.ones(20, dtype=torch.bool)
    orders = {
        tuple(permuted(terms, counted, place).tolist()) for place in ((1,), (2,), (1, 0), (1, 1), (1, 0, 1), (1, 1, 0))
    }
    assert len(orders) == 6
