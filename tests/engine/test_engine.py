"""The engine as a user meets it, on two ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.combinations.covering import taking_turns
from tests.engine import behaviour, refusals
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


@pytest.mark.parametrize(("strategy", "stage"), taking_turns(["one_pass", "two_pass"], (2, 3, 0)))
def test_a_step_of_another_number_of_micro_batches_than_planned(two_ranks: Ranks, stage: int, strategy: str) -> None:
    """Where the caller states the boundary, the gradient is that of the samples there are."""
    assert max(two_ranks.run(behaviour.stated_boundary, stage, strategy)) < 1e-6


@pytest.mark.parametrize(("accumulation_steps", "stage"), [(1, 2), (2, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("strategy", ["one_pass", "two_pass"])
def test_training_goes_on_after_a_step_without_a_finite_sample(
    two_ranks: Ranks, strategy: str, accumulation_steps: int, stage: int
) -> None:
    """Where the caller takes the error: nothing of that step is left."""
    assert max(two_ranks.run(behaviour.step_after_a_failure, strategy, accumulation_steps, stage)) < 1e-7


@pytest.mark.parametrize("strategy", ["one_pass", "two_pass"])
def test_a_load_ends_the_step_in_progress(two_ranks: Ranks, tmp_path: Path, strategy: str) -> None:
    """Also of a checkpoint that has nothing of PRESENCE."""
    assert two_ranks.run(behaviour.step_after_a_load, str(tmp_path), strategy) == [(2 * 2 * 3, 0.0)] * 2


STATEFUL: dict[str, tuple[int, int, dict[str, Any]]] = {  # accumulation steps, steps before the checkpoint, section
    "running statistics": (3, 2, {"schedule": {"switch_step": 3}}),
    "running level of clip": (3, 2, {"weighting": {"kind": "clip"}}),
    "two passes": (3, 2, {"strategy": "two_pass", "schedule": {"switch_step": 3}}),
    "switch that is found": (1, 22, {"schedule": {"kind": "auto", "training_steps": 44, "switch_fraction": 0.9}}),
    "reference gradient": (1, 2, {"signal": "alignment"}),
    "direction of the steps before": (
        2,
        2,
        {"strategy": "two_pass", "alignment": True, "weighting": {"features": ["norm", "momentum"]}},
    ),
}


FOUND = "switch that is found"  # takes many steps


@pytest.mark.parametrize(
    ("case", "stage"), [*taking_turns([case for case in STATEFUL if case != FOUND], (3, 2, 0, 1)), (FOUND, 2)]
)
def test_a_resumed_training_is_the_same_to_the_bit(two_ranks: Ranks, tmp_path: Path, stage: int, case: str) -> None:
    """Everything that weights depend on is in the checkpoint."""
    accumulation_steps, half, presence = STATEFUL[case]
    arguments = (str(tmp_path), stage, accumulation_steps, presence, half)
    for found in two_ranks.run(behaviour.resume, *arguments):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.whole, found.resumed, strict=True))
        assert found.whole_statistics == found.resumed_statistics
        assert found.whole_state == found.resumed_state
        if "switch_step" in presence.get("schedule", {}):
            assert found.whole_statistics["stage"] == "inverse"
        if case == FOUND:
            assert half < found.whole_statistics["switch_step"] <= 40


REFUSALS = {
    "fp16 at stage 0": "ConfigError: fp16.enabled is true with zero_optimization.stage 0",
    "fp16": "ConfigError: fp16.enabled is true, and device cpu does not compute in fp16: use bf16.enabled or float32",
    "autocast": "ConfigError: torch_autocast.enabled is true: use bf16.enabled, fp16.enabled or float32 instead",
    "unmanaged accumulation": "ConfigError: managed_gradient_accumulation is false",
    "checkpointing": "ConfigError: model has activation checkpointing enabled",
    "batch statistics": "ConfigError: presence.statistics is batch with gradient_accumulation_steps 2",
    "field": "ConfigError: Group 'presence' does not accept option 'projecton_dim'",
    "bf16 with fp32 accumulation": "ConfigError: gradient_accumulation_steps is above 1 with bf16 and data_types.grad_",
    "hybrid engine": "ConfigError: hybrid_engine.enabled is true",
    "tensor parallel": "ConfigError: autotp_size is 2, which spreads a sample's gradient over ranks",
    "sequence parallel": "ConfigError: sequence_parallel_size is 2",
    "compiled": "ConfigError: module the model itself is compiled by torch.compile",
    "compiled later": "ConfigError: engine.compile is called with presence.strategy one_pass",
    "encoder": "ConfigError: model BertLMHeadModel: logits of a position change with the tokens after it",
    "encoder by samples": "ConfigError: model BertLMHeadModel: logits of a position change with the tokens after it",
    "compiled under ZeRO-3": "ConfigError: engine.compile is called with zero_optimization.stage 3",
    "experts": "AttributionError: module model.layers.0.mlp.experts (MixtralExperts) holds stacks of matrices",
    "one leaf": "ConfigError: ZeRO-3 treats modules of type LlamaDecoderLayer as one leaf",
    "another loss": "ConfigError: engine.backward was given another loss than the engine's forward returned",
    "reference for another signal": "ConfigError: presence.signal is self_influence and presence.alignment_with step",
    "no reference": "ConfigError: samples are compared with a reference, by presence.signal or",
    "wide sketches": "ConfigError: presence.alignment_dim is 1000000000 with alignments, so that 1,000,000,000 numbers",
    "too wide": "ConfigError: presence.projection_dim is 10000 with signal leverage, which solves",
    "decoder": "ConfigError: the batch has no decoder_input_ids, and _EncoderDecoder cannot make them from labels",
    "labels": "ConfigError: the batch has no labels",
    "part of a micro-batch": "ConfigError: the batch has 2 samples, train_micro_batch_size_per_gpu is 3",
    "no finite sample": "NonFiniteError: optimizer step 1: none of the 6 samples with targets has a",
    "positions first": "AttributionError: module inner.linear (Linear) was given an input of shape [7, 3, 8]",
    "selection of tokens": "AttributionError: module inner.linear (Linear) was given an input of shape [20, 8]",
    "stray weight": "AttributionError: parameter inner.linear.weight is used outside the call of its module",
    "missing file": "ConfigError: config: missing.json does not exist",
}


def test_what_cannot_work_is_refused_in_one_line(two_ranks: Ranks) -> None:
    for messages in two_ranks.run(refusals.refusals):
        assert set(messages) == set(REFUSALS)
        for case, expected in REFUSALS.items():
            assert messages[case].startswith(expected), (case, messages[case])
            assert "\n" not in messages[case]
