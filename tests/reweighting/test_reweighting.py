"""Whole steps on one rank, and on two."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.reweighting import MicroBatch, Reweighting, ReweightingConfig, StepWeights, WeightingConfig
from presence_ds.reweighting.normalizers import Moments
from tests.ranks import Ranks
from tests.reweighting.steps import (
    EVERY_KIND,
    RUNNING_KINDS,
    accumulated,
    finished,
    finished_batch,
    micro_batch,
    random_batch,
    reweighting,
    take,
)

pytestmark = pytest.mark.usefixtures("one_process")

finite_scores = st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=40)


@given(scores=finite_scores, tau=st.floats(-3, 3))
def test_equations_7_and_8(scores: list[float], tau: float) -> None:
    values = torch.tensor(scores).double()
    z = (values - values.mean()) / (values.var(correction=0) + 1e-24).sqrt()
    result = finished(reweighting(tau), scores)
    torch.testing.assert_close(result.local.double(), torch.softmax(tau * z, 0), rtol=1e-4, atol=1e-7)
    assert result.local.double().sum().item() == pytest.approx(1, abs=1e-5)


def test_equal_scores_get_equal_weights() -> None:
    assert finished(reweighting(), [0.3] * 7).local.tolist() == pytest.approx([1 / 7] * 7)


@pytest.mark.parametrize("weighting", ["softmax", "saturating", "clip"])
@pytest.mark.parametrize("running", [False, True])
def test_uniform_ignores_score_and_temperature(weighting: str, running: bool) -> None:
    target = reweighting(1.0, signal="uniform", weighting={"kind": weighting}, running=running)
    for step in (1, 2):
        terms, result = accumulated(target, [micro_batch([1.0, 2.0, 30.0])] * (1 + running), step)
        assert terms.unique().tolist() == [1.0]
        assert result.local.tolist() == pytest.approx([1 / len(terms)] * len(terms))
        assert result.statistics["si_max"] == 30.0
        assert result.statistics.get("tau", 0.0) == 0.0


@pytest.mark.parametrize("fields", RUNNING_KINDS, ids=str)
@pytest.mark.parametrize("tau", [1.0, -2.0])
def test_terms_for_fp16_are_bounded_and_give_the_same_weights(fields: dict[str, Any], tau: float) -> None:
    """Only the terms of an outlier are held, at 256 times the largest of the step before; all others keep theirs."""
    fields = {"tau": tau} | fields
    target, other, resumed = (reweighting(**fields, running=True, bounded=bounded) for bounded in (True, False, True))
    for step in (1, 2, 3):
        parts = [random_batch(fields, 4, seed=10 * step + part) for part in range(3)]
        if step == 3:
            for values in (parts[1].losses, parts[1].scores):
                if values is not None:
                    values[2] *= 1e6 if tau > 0 else 1e-6
        terms, result = accumulated(target, parts, step)
        expected, free = accumulated(other, parts, step)
        assert torch.equal(terms, result.terms)
        assert 0 < terms.max() <= 256
        kept = terms < 256
        torch.testing.assert_close(terms[kept] * expected[0] / terms[0], expected[kept])
        if kept.all():
            torch.testing.assert_close(result.local, free.local)
        if step == 2:
            resumed.load_state_dict(json.loads(json.dumps(target.state_dict())))
    if tau > 0 and fields.get("signal") != "uniform" and "weighting" not in fields:  # the outlier is held
        assert terms.max() == 256 < expected.max()
    assert torch.equal(accumulated(resumed, parts, 3)[0], terms)


def test_running_statistics_are_those_of_earlier_steps() -> None:
    target = reweighting(running=True)
    steps = [[1.0, 2.0, 4.0, 9.0], [2.0, 2.5, 3.0, 8.0], [5.0, 1.0, 0.0, 2.0]]
    moments = [Moments.of(torch.tensor(scores)) for scores in steps]
    for number, scores in enumerate(steps):
        _, result = accumulated(target, [micro_batch(scores[:2]), micro_batch(scores[2:])], number + 1)
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


@pytest.mark.parametrize("fields", RUNNING_KINDS, ids=str)
def test_the_provisional_terms_and_their_mean_give_the_weights(fields: dict[str, Any]) -> None:
    """What the engine relies on: w_i = u_i / (N · mean of u), with the u that it has weighed by already."""
    target = reweighting(running=True, **fields)
    for step in (1, 2):
        batches = [random_batch(fields, 4, 10 * step + index) for index in range(3)]
        batches[1].losses[0] = math.nan
        terms, result = accumulated(target, batches, step)
        torch.testing.assert_close(terms, result.terms, rtol=1e-14, atol=0.0)
        torch.testing.assert_close((terms / (12 * result.mean_term)).float(), result.local)
        assert result.local.double().sum().item() == pytest.approx(1, abs=1e-6)
        assert result.local[4] == 0


@pytest.mark.parametrize("fields", RUNNING_KINDS, ids=str)
def test_no_step_is_too_far_from_earlier_ones(fields: dict[str, Any]) -> None:
    """A level that jumps up or down by ten orders of magnitude leaves finite weights that sum to 1."""
    target = reweighting(running=True, **fields)
    for step, factor in enumerate([1.0, 1e10, 1e-10, 1.0], start=1):
        batch = random_batch(fields, 8, step)
        scaled = {name: value * factor for name, value in (("losses", batch.losses), ("scores", batch.scores))
                  if value is not None}  # fmt: skip
        _, result = accumulated(target, [MicroBatch(**(vars(batch) | scaled))] * 2, step)
        assert result.terms.isfinite().all()
        assert result.local.double().sum().item() == pytest.approx(1, abs=1e-6)


AUTO = {"kind": "auto", "training_steps": 80, "switch_step": 70, "slowdown_window": 10, "slowdown_share": 0.2}


def with_auto(fields: dict[str, Any], running: bool) -> Reweighting:
    return reweighting(running=running, **(fields | {"schedule": AUTO}))


@pytest.mark.parametrize(
    ("fields", "running"), [*((f, True) for f in RUNNING_KINDS), *((f, False) for f in EVERY_KIND)], ids=str
)
def test_state_is_restored_to_the_bit(fields: dict[str, Any], running: bool) -> None:
    """From a checkpoint in the middle of training, through JSON, into one with a step in progress."""
    whole, resumed = (with_auto(fields, running) for _ in range(2))

    def take_step(target: Reweighting, step: int) -> StepWeights:
        batch = random_batch(fields, 5, step)
        target.collect(MicroBatch(**(vars(batch) | {"losses": batch.losses * 0.01 + 10 * 0.93**step})))
        return target.finish(step)

    for step in range(1, 26):
        result = take_step(whole, step)
    resumed.collect(random_batch(fields, 5, 1000))
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for step in range(26, 70):
        result, other = take_step(whole, step), take_step(resumed, step)
        assert torch.equal(result.local, other.local)
        assert torch.equal(result.terms, other.terms)
        assert result.statistics == other.statistics
        assert whole.state_dict() == resumed.state_dict()
    if fields.get("weighting") != {"kind": "clip"}:
        assert result.statistics["stage"] == "inverse"
        assert 25 < result.statistics["switch_step"] < 69  # found, and after the checkpoint


@pytest.mark.parametrize("running", [False, True])
def test_what_is_told_of_a_step_can_wait(running: bool) -> None:
    """Asked for at once, one step late or not at all: weights, and what is told and learned, are the same."""
    config = ReweightingConfig(weighting=WeightingConfig("calibrated", features=["norm", "loss"]))
    config.validate("presence")
    targets = [Reweighting(config, running=running, group=None) for _ in range(3)]
    late: StepWeights | None = None
    told: dict[str, Any] = {}
    for step in range(1, 90):
        generator = torch.Generator().manual_seed(step)
        length = torch.rand(16, 1, generator=generator) * 4  # long gradients are noise
        sketches = 1.0 + length * torch.randn(16, 8, generator=generator)
        batch = random_batch({}, 16, step)
        results = []
        for target in targets:
            own = {"sketches": sketches.clone(), "scores": sketches.square().sum(1)}  # a step overwrites sketches
            target.collect(MicroBatch(**(vars(batch) | own)))
            results.append(target.finish(step))
        assert all(torch.equal(results[0].terms, other.terms) for other in results)
        assert late is None or late.statistics == told
        late, told = results[1], results[0].statistics
    assert told["calibration_strength"] > 0.0
    states = [str(target.state_dict()) for target in targets]
    assert states == states[:1] * 3


def test_a_skipped_step_can_be_undone() -> None:
    target = with_auto({}, True)
    finished(target, [1.0, 2.0])
    before = target.state_dict()
    kept = json.dumps(before)
    finished(target, [100.0, 250.0], step=2)
    assert json.dumps(before) == kept  # a copy, which later steps do not change
    assert target.state_dict() != before
    target.load_state_dict(before)
    assert target.state_dict() == before


def test_figures_of_another_normalizer_are_left_aside() -> None:
    source, target = reweighting(running=True), reweighting(running=True, normalizer="log_zscore")
    finished(source, [1.0, 1000.0])
    target.load_state_dict(source.state_dict())
    assert finished(target, [1.0, 2.0, 8.0]).statistics["normalizer_mean"] == pytest.approx(math.log(16) / 3)


def test_statistics_against_plain_formulas() -> None:
    losses, sources = torch.tensor([3.0, math.nan, 4.0, 2.0]), torch.tensor([7, 7, 0, 7])
    result = finished(reweighting(-0.5), [1.0, 2.0, 4.0, 3.0], step=9, losses=losses, sources=sources)
    found, w = result.statistics, result.local.double()
    assert found["step"] == 9
    assert (found["tau"], found["stage"]) == (-0.5, "constant")
    assert (found["samples"], found["nonfinite_samples"]) == (4, 1)
    assert found["loss"] == pytest.approx(3.0)
    assert found["weighted_loss"] == pytest.approx((w[[0, 2, 3]] * losses[[0, 2, 3]]).sum().item())
    assert (found["si_min"], found["si_max"]) == (1.0, 4.0)
    assert found["si_mean"] == found["normalizer_mean"] == pytest.approx(8 / 3)
    assert found["si_variance"] == pytest.approx(14 / 9)
    assert found["effective_sample_size"] == pytest.approx(1 / w.square().sum().item(), rel=1e-6)
    assert found["max_weight"] == pytest.approx(w.max().item())
    assert list(found["sources"]) == [0, 7]
    assert found["sources"][0] == pytest.approx({"samples": 1, "mean_weight": 4 * w[2].item(), "si_mean": 4, "loss": 4})
    assert found["sources"][7] == pytest.approx(
        {"samples": 3, "mean_weight": 4 * w[[0, 1, 3]].mean().item(), "si_mean": 2, "loss": 2.5}
    )
    assert not {"tau_scheduled", "switch_step", "clip_level", "near_duplicate_share"} & set(found)


def test_figures_that_do_not_apply_are_absent() -> None:
    by_loss = finished_batch({"signal": "loss"}, random_batch({"signal": "loss"}, 4, 0)).statistics
    assert not [name for name in by_loss if name.startswith("si_")]
    assert {name for source in by_loss["sources"].values() for name in source} == {"samples", "mean_weight", "loss"}
    assert "normalizer_std" in by_loss
    clipped = finished_batch({"weighting": {"kind": "clip"}}, random_batch({}, 4, 0)).statistics
    assert not {"tau", "normalizer_mean", "normalizer_std"} & set(clipped)
    assert {"clip_level", "si_mean"} <= set(clipped)
    assert "normalizer_mean" not in finished_batch({"normalizer": "rank"}, random_batch({}, 4, 0)).statistics


def test_a_signal_weighs_by_its_own_values() -> None:
    batch = random_batch({"signal": "alignment"}, 9, 0)
    for fields, values in (
        ({"signal": "loss"}, batch.losses),
        ({"signal": "alignment"}, batch.reference_alignment),
        ({}, batch.scores),
    ):
        scores = None if fields.get("signal") == "loss" else batch.scores
        alignment = batch.reference_alignment if fields.get("signal") == "alignment" else None
        given = MicroBatch(batch.losses, batch.targets, batch.sources, scores, alignment)
        z = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(finished_batch(fields, given).local, torch.softmax(z, 0))


def steps_of(fields: dict[str, Any], running: bool, micro_batches: int) -> list[Any]:
    """Runs on every rank of a pool: its share of three steps' samples."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    target = reweighting(running=running, **fields)
    results = []
    for step in (1, 2, 3):
        everything = random_batch(fields, 8, step)
        everything.losses[5] = math.nan
        mine = take(everything, slice(rank * 8 // ranks, (rank + 1) * 8 // ranks))
        size = len(mine.losses) // micro_batches
        parts = [take(mine, slice(i * size, (i + 1) * size)) for i in range(micro_batches)]
        terms, result = accumulated(target, parts, step) if running else (None, _whole(target, parts, step))
        if terms is not None:
            torch.testing.assert_close(terms, result.terms, rtol=1e-14, atol=0.0)
        results.append((result.local, result.terms, result.mean_term, result.statistics))
    return results


def _whole(target: Reweighting, parts: list[MicroBatch], step: int) -> StepWeights:
    for part in parts:
        target.collect(part)
    return target.finish(step)


@pytest.mark.parametrize("fields", EVERY_KIND, ids=str)
def test_two_ranks_weigh_as_one_does(two_ranks: Ranks, fields: dict[str, Any]) -> None:
    """The same samples, so the same weights and statistics; several micro-batches of a two-pass step among them."""
    exactly = fields.get("signal") != "leverage"  # whose matrix is a sum over the ranks
    for micro_batches in (1, 2):
        _compare(two_ranks.run(steps_of, fields, False, micro_batches), steps_of(fields, False, 1), exactly)


def unequal_steps(fields: dict[str, Any], running: bool) -> list[Any]:
    """Runs on every rank of a pool: three steps' samples, of which each has another number, in two micro-batches."""
    target = reweighting(running=running, unequal=True, **fields)
    cuts = [(0, 1, 5), (5, 7, 8)][dist.get_rank()]
    results = []
    for step in (1, 2, 3):
        everything = random_batch(fields, 8, step)
        everything.losses[5] = math.nan
        parts = [take(everything, slice(*pair)) for pair in pairwise(cuts)]
        terms, result = accumulated(target, parts, step) if running else (None, _whole(target, parts, step))
        if terms is not None:
            torch.testing.assert_close(terms, result.terms, rtol=1e-14, atol=0.0)
        results.append((result.local, result.terms, result.mean_term, result.statistics))
    return results


@pytest.mark.parametrize("fields", EVERY_KIND, ids=str)
def test_ranks_may_have_different_numbers_of_samples(two_ranks: Ranks, fields: dict[str, Any]) -> None:
    exactly = fields.get("signal") != "leverage"
    _compare(two_ranks.run(unequal_steps, fields, False), steps_of(fields, False, 1), exactly)


def test_a_placebo_is_given_out_within_unequal_micro_batches(two_ranks: Ranks) -> None:
    first, second = two_ranks.run(unequal_steps, {"weighting": {"kind": "softmax", "placebo": True}}, True)
    assert [step[2:] for step in first] == [step[2:] for step in second]


@pytest.mark.parametrize("fields", RUNNING_KINDS, ids=str)
def test_two_ranks_follow_running_figures_as_one_does(two_ranks: Ranks, fields: dict[str, Any]) -> None:
    _compare(two_ranks.run(steps_of, fields, True, 1), steps_of(fields, True, 1))
    first, second = two_ranks.run(steps_of, fields, True, 2)  # the first micro-batch decides, over both ranks
    assert [step[2:] for step in first] == [step[2:] for step in second]


def _compare(ranks: list[Any], alone: list[Any], exactly: bool = True) -> None:
    """With each other the ranks agree to the bit in any case."""
    for first, second, one in zip(*ranks, alone, strict=True):
        for part in (0, 1):
            found = torch.cat([first[part], second[part]])
            torch.testing.assert_close(found, one[part], rtol=0.0 if exactly else 1e-6, atol=0.0)
        assert first[2:] == second[2:]
        if exactly:
            assert first[2:] == one[2:]
