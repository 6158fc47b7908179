"""The engine as a user meets it, on two ranks."""

from pathlib import Path

import pytest
import torch

from tests.engine import behaviour
from tests.ranks import Ranks


@pytest.mark.parametrize("stage", [2, 3])
def test_the_model_stays_plain(two_ranks: Ranks, stage: int) -> None:
    for checks in two_ranks.run(behaviour.the_model_stays_plain, stage):
        assert all(checks.values()), checks


def test_every_way_to_configure_means_the_same(two_ranks: Ranks, tmp_path: Path) -> None:
    for first, *others in two_ranks.run(behaviour.configurations, str(tmp_path)):
        assert all(name.startswith("transformer.h.0.") for name in first["scored"])
        assert first["tau"] == 0.5
        assert all(other == first for other in others)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_weights_and_statistics_agree_on_all_ranks(two_ranks: Ranks, accumulation_steps: int) -> None:
    ranks = two_ranks.run(behaviour.statistics_and_weights, accumulation_steps)
    assert ranks[0]["before"] == (None, None)
    assert ranks[0]["statistics"] == ranks[1]["statistics"]
    weights, scores, losses = (
        torch.cat([rank[key] for rank in ranks]).double() for key in ("weights", "scores", "losses")
    )
    found = ranks[0]["statistics"]
    count = 2 * 3 * accumulation_steps
    assert found["samples"] == len(weights) == count
    assert weights.sum().item() == pytest.approx(1, abs=1e-6)
    assert found["step"] == 2
    assert (found["tau"], found["stage"], found["nonfinite_samples"]) == (1.0, "constant", 0)
    assert found["si_mean"] == pytest.approx(scores.mean().item())
    assert found["si_variance"] == pytest.approx(scores.var(correction=0).item())
    assert (found["si_min"], found["si_max"]) == (scores.min().item(), scores.max().item())
    assert found["loss"] == pytest.approx(losses.mean().item())
    assert found["weighted_loss"] == pytest.approx((weights * losses).sum().item(), rel=1e-6)
    assert found["effective_sample_size"] == pytest.approx(1 / weights.square().sum().item(), rel=1e-5)
    assert found["max_weight"] == pytest.approx(weights.max().item())
    first = torch.arange(0, 3 * accumulation_steps, 3)  # rank 0's first samples are of source 0, all others of 7
    assert found["sources"][0]["samples"] == len(first)
    assert found["sources"][0]["mean_weight"] == pytest.approx(weights[first].mean().item() * count, rel=1e-5)
    assert found["sources"][0]["si_mean"] == pytest.approx(scores[first].mean().item())
    share = sum(source["samples"] * source["mean_weight"] for source in found["sources"].values())
    assert share / count == pytest.approx(1)
    if accumulation_steps == 1:  # batch statistics: equations 7 and 8 on what was gathered
        expected = torch.softmax((scores - scores.mean()) / scores.std(correction=0), 0)
        torch.testing.assert_close(weights, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_resumed_training_is_the_same_to_the_bit(two_ranks: Ranks, tmp_path: Path, stage: int) -> None:
    """Running statistics are in the checkpoint: with three accumulation steps the weights depend on them."""
    for whole, resumed, statistics, resumed_statistics in two_ranks.run(behaviour.resume, str(tmp_path), stage):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(whole, resumed, strict=True))
        assert statistics == resumed_statistics
        assert statistics["stage"] == "inverse"


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bfloat16_trains_with_nearly_the_same_weights(two_ranks: Ranks, stage: int, accumulation_steps: int) -> None:
    for rank in two_ranks.run(behaviour.bfloat16, stage, accumulation_steps):
        assert rank["dtype"] == torch.float32
        weights = rank["weights"]
        torch.testing.assert_close(weights[True], weights[False], rtol=0.15, atol=0.0)
        assert rank["losses"] == pytest.approx([4.6] * len(rank["losses"]), abs=0.3)


REFUSALS = {
    "stage 0": "ConfigError: zero_optimization.stage is 0: strategy one_pass works on stages 1, 2 and 3",
    "fp16": "ConfigError: fp16.enabled is true: strategy one_pass supports bf16 and float32",
    "checkpointing": "ConfigError: model has activation checkpointing enabled",
    "batch statistics": "ConfigError: presence.statistics is batch with gradient_accumulation_steps 2",
    "field": "ConfigError: Group 'presence' does not accept option 'projecton_dim'",
    "bf16 with fp32 accumulation": "ConfigError: gradient_accumulation_steps is above 1 with zero_optimization.stage 1",
    "labels": "ConfigError: the batch has no labels",
    "part of a micro-batch": "ConfigError: the batch has 2 samples, train_micro_batch_size_per_gpu is 3",
    "no finite sample": "NonFiniteError: optimizer step 1: none of the 6 samples has a finite loss",
    "positions first": "AttributionError: module inner.linear (Linear) was given an input of shape [7, 3, 8]",
    "selection of tokens": "AttributionError: module inner.linear (Linear) was given an input of shape [20, 8]",
    "stray weight": "AttributionError: parameter inner.linear.weight (Linear) is used outside the call of its module",
    "missing file": "ConfigError: config: missing.json does not exist",
}


def test_what_cannot_work_is_refused_in_one_line(two_ranks: Ranks) -> None:
    for messages in two_ranks.run(behaviour.refusals):
        assert set(messages) == set(REFUSALS)
        for case, expected in REFUSALS.items():
            assert messages[case].startswith(expected), (case, messages[case])
            assert "\n" not in messages[case]
