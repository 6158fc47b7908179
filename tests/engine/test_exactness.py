"""Reweighted training on two ranks under ZeRO 1, 2 and 3 against the single-process reference."""

import pytest

from tests.engine.training import compare_uniform_with_plain, compare_with_reference
from tests.models import KINDS
from tests.ranks import Ranks

TOLERANCE = {"weights": 5e-6, "scores": 5e-5, "losses": 1e-5, "norm": 2e-5, "sum": 1e-6}


def check(worst: dict[str, float], parameters: float) -> None:
    assert worst["movement"] > 1e-2  # the comparison means something
    for key, tolerance in (TOLERANCE | {"parameters": parameters}).items():
        assert worst[key] < tolerance, (key, worst)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sgd_equals_the_reference(two_ranks: Ranks, kind: str, tied: bool, stage: int, accumulation_steps: int) -> None:
    for worst in two_ranks.run(compare_with_reference, kind, tied, stage, accumulation_steps, "sgd"):
        check(worst, parameters=2e-6)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_adamw_equals_the_reference(two_ranks: Ranks, stage: int, accumulation_steps: int) -> None:
    for worst in two_ranks.run(compare_with_reference, "llama", True, stage, accumulation_steps, "adamw"):
        check(worst, parameters=2e-5)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [2, 3])
def test_clipping_acts_on_the_true_norm(two_ranks: Ranks, stage: int, accumulation_steps: int) -> None:
    """The reference clips Σ w g; the reported norm is that of Σ w g too (every step's is above 0.1)."""
    for worst in two_ranks.run(compare_with_reference, "llama", False, stage, accumulation_steps, "sgd", 0.1):
        check(worst | {"movement": 1.0}, parameters=2e-6)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_sample_that_is_not_finite_is_left_out(two_ranks: Ranks, stage: int, accumulation_steps: int) -> None:
    for worst in two_ranks.run(compare_with_reference, "llama", False, stage, accumulation_steps, "sgd", 0.0, True):
        assert worst["nonfinite"] == 1
        check(worst, parameters=2e-6)


VARIANTS = {
    "offload_2": (2, {"offload_optimizer": {"device": "cpu"}}),
    "offload_3": (3, {"offload_optimizer": {"device": "cpu"}}),
    "small_parameters_whole_3": (3, {"stage3_param_persistence_threshold": 1_500}),
    "no_overlap_3": (3, {"overlap_comm": False, "contiguous_gradients": False}),
    "no_overlap_2": (2, {"overlap_comm": False, "contiguous_gradients": False}),
}


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_ways_to_shard_equal_the_reference(two_ranks: Ranks, variant: str, accumulation_steps: int) -> None:
    stage, zero = VARIANTS[variant]
    arguments = ("llama", True, stage, accumulation_steps, "sgd", 0.0, False, zero)
    for worst in two_ranks.run(compare_with_reference, *arguments):
        check(worst, parameters=2e-6)


@pytest.mark.parametrize("accumulation_steps", [1, 3])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_uniform_weights_are_plain_deepspeed(two_ranks: Ranks, stage: int, accumulation_steps: int) -> None:
    assert max(two_ranks.run(compare_uniform_with_plain, stage, accumulation_steps)) < 1e-6
