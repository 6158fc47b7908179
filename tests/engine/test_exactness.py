"""Reweighted training on two ranks against the single-process reference: every strategy, every way to shard."""

from typing import Any

import pytest

from tests.engine.training import Case, compare_uniform_with_plain, compare_with_reference
from tests.models import KINDS
from tests.ranks import Ranks

TOLERANCE = {"weights": 5e-6, "scores": 5e-5, "losses": 1e-5, "norm": 2e-5, "sum": 1e-6, "parameters": 2e-6}
STRATEGIES = ("one_pass", "two_pass")
STAGES = (0, 1, 2, 3)


def check(ranks: Ranks, case: Case, **tolerance: float) -> None:
    for worst in ranks.run(compare_with_reference, case):
        assert worst["movement"] > (1e-4 if case.clip else 1e-2)  # the comparison means something
        assert worst["nonfinite"] == case.poison
        for key, limit in (TOLERANCE | tolerance).items():
            assert worst[key] < limit, (key, worst)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_equals_the_reference(
    two_ranks: Ranks, kind: str, tied: bool, stage: int, accumulation_steps: int
) -> None:
    check(two_ranks, Case(kind, tied, stage, accumulation_steps))


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("checkpointing", [None, "reentrant", "non_reentrant"])
@pytest.mark.parametrize("stage", STAGES)
def test_two_pass_equals_the_reference(
    two_ranks: Ranks, stage: int, checkpointing: str | None, accumulation_steps: int
) -> None:
    """The weights of every accumulation step come from the exact moments of the whole optimizer step."""
    kind = KINDS[stage % 2]
    check(two_ranks, Case(kind, True, stage, accumulation_steps, "two_pass", checkpointing=checkpointing))


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_stage_0_equals_the_reference(two_ranks: Ranks, clip: float, accumulation_steps: int) -> None:
    check(two_ranks, Case(stage=0, accumulation_steps=accumulation_steps, clip=clip))


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_adamw_equals_the_reference(two_ranks: Ranks, stage: int, accumulation_steps: int) -> None:
    check(two_ranks, Case(stage=stage, accumulation_steps=accumulation_steps, optimizer="adamw"), parameters=2e-5)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clipping_acts_on_the_true_norm(two_ranks: Ranks, strategy: str, stage: int, accumulation_steps: int) -> None:
    """The reference clips Σ w g; the reported norm is that of Σ w g too (every step's is above 0.1)."""
    check(two_ranks, Case("llama", False, stage, accumulation_steps, strategy, clip=0.1))


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_sample_that_is_not_finite_is_left_out(
    two_ranks: Ranks, strategy: str, stage: int, accumulation_steps: int
) -> None:
    check(two_ranks, Case("llama", False, stage, accumulation_steps, strategy, poison=True))


TARGETLESS = [  # stage, strategy, accumulation steps, section
    (1, "one_pass", 1, {}),
    (3, "one_pass", 3, {}),
    (2, "two_pass", 3, {}),
    (3, "two_pass", 1, {}),
    (0, "one_pass", 3, {"signal": "loss"}),
    (2, "two_pass", 1, {"signal": "loss"}),
    (2, "one_pass", 3, {"granularity": "microbatch"}),
    (1, "two_pass", 3, {"granularity": "global_microbatch"}),
]


@pytest.mark.parametrize(("stage", "strategy", "accumulation_steps", "presence"), TARGETLESS, ids=str)
def test_a_sample_without_targets_is_left_out(
    two_ranks: Ranks, stage: int, strategy: str, accumulation_steps: int, presence: dict[str, Any]
) -> None:
    """Of weights, statistics and gradient, wherever such samples lie; a step of nothing else updates nothing."""
    case = Case("llama", True, stage, accumulation_steps, strategy, targetless=True, presence=presence)
    check(two_ranks, case, weights=1e-4, norm=1e-4, parameters=2e-5)


VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "offload_2": (2, {"offload_optimizer": {"device": "cpu"}}),
    "offload_3": (3, {"offload_optimizer": {"device": "cpu"}}),
    "offload_all_3": (3, {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}),
    "small_parameters_whole_3": (3, {"stage3_param_persistence_threshold": 1_500}),
    "no_overlap_3": (3, {"overlap_comm": False, "contiguous_gradients": False}),
    "no_overlap_2": (2, {"overlap_comm": False, "contiguous_gradients": False}),
}


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_other_ways_to_shard_equal_the_reference(
    two_ranks: Ranks, strategy: str, variant: str, accumulation_steps: int
) -> None:
    stage, zero = VARIANTS[variant]
    check(two_ranks, Case("llama", True, stage, accumulation_steps, strategy, zero=zero))


SCALINGS: list[tuple[int, dict[str, Any]]] = [  # stage, and how the mean over ranks is taken
    (0, {"prescale_gradients": True}),
    (0, {"gradient_predivide_factor": 2.0}),
    (1, {"prescale_gradients": True, "gradient_predivide_factor": 4.0}),
]


@pytest.mark.parametrize(("stage", "settings"), SCALINGS)
def test_gradients_scaled_before_they_are_reduced_equal_the_reference(
    two_ranks: Ranks, stage: int, settings: dict[str, Any]
) -> None:
    check(two_ranks, Case("llama", True, stage, 3, settings=settings))


def test_gradients_scaled_before_an_all_reduce_of_stage_2_equal_the_reference(two_ranks: Ranks) -> None:
    settings = {"prescale_gradients": True, "communication_data_type": "fp32"}
    check(two_ranks, Case("llama", True, 2, 3, zero={"reduce_scatter": False}, settings=settings))


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_uniform_weights_are_plain_deepspeed(
    two_ranks: Ranks, strategy: str, stage: int, accumulation_steps: int
) -> None:
    assert max(two_ranks.run(compare_uniform_with_plain, stage, accumulation_steps, strategy)) < 1e-6


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("poison", [False, True])
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_by_the_loss_equal_the_reference(
    two_ranks: Ranks, strategy: str, stage: int, poison: bool, accumulation_steps: int
) -> None:
    presence = {"signal": "loss"}
    case = Case("llama", False, stage, accumulation_steps, strategy, poison=poison, presence=presence)
    # losses of a random model differ by a percent, so z-scores magnify their rounding
    check(two_ranks, case, weights=5e-5, norm=5e-5, parameters=1e-5)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(
    ("strategy", "granularity", "accumulation_steps"),
    [
        ("one_pass", "microbatch", 1),
        ("one_pass", "microbatch", 3),
        ("one_pass", "global_microbatch", 3),
        ("two_pass", "microbatch", 3),
        ("two_pass", "global_microbatch", 3),
    ],
)
def test_micro_batches_scored_as_a_whole_equal_the_reference(
    two_ranks: Ranks, strategy: str, granularity: str, accumulation_steps: int, stage: int
) -> None:
    """global_microbatch adds up gradients over ranks before their norm; without projections that is exact."""
    presence = {"granularity": granularity, "estimator": "exact"}
    check(two_ranks, Case("llama", True, stage, accumulation_steps, strategy, presence=presence))
