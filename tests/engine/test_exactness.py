"""Reweighted training on two ranks against the single-process reference: every strategy, every way to shard.

Every pair of settings that can be had together occurs in a case; what is weighed by which moments, which depends on the
strategy and on the accumulation steps together, is one setting here.
"""

from typing import Any

import pytest

from tests.combinations.covering import covered, named
from tests.engine.training import Case, compare_uniform_with_plain, compare_with_reference
from tests.models import KINDS
from tests.ranks import Ranks

TOLERANCE = {
    "weights": 5e-6,
    "scores": 5e-5,
    "losses": 1e-5,
    "norm": 2e-5,
    "sum": 1e-6,
    "parameters": 2e-6,
    "alignments": 2e-5,
}
# Losses of a random model differ by a percent, so z-scores magnify their rounding; so they do with few samples.
ROOM: dict[Any, dict[str, float]] = {
    "loss": {"weights": 5e-5, "norm": 5e-5, "parameters": 1e-5},
    "without targets": {"weights": 1e-4, "norm": 1e-4, "parameters": 2e-5},
    "adamw": {"parameters": 2e-5},
}
OFFLOAD = {"device": "cpu"}
NO_OVERLAP = {"overlap_comm": False, "contiguous_gradients": False}
SHARDING: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {  # stages, and fields of the DeepSpeed configuration
    "as it is": ((0, 1, 2, 3), {}),
    "offloaded optimizer": ((2, 3), {"zero_optimization": {"offload_optimizer": OFFLOAD}}),
    "all offloaded": ((3,), {"zero_optimization": {"offload_optimizer": OFFLOAD, "offload_param": OFFLOAD}}),
    "small parameters whole": ((3,), {"zero_optimization": {"stage3_param_persistence_threshold": 1_500}}),
    "no overlap": ((2, 3), {"zero_optimization": NO_OVERLAP}),
    # how the mean over ranks is taken
    "prescaled": ((0,), {"prescale_gradients": True}),
    "predivided": ((0,), {"gradient_predivide_factor": 2.0}),
    "prescaled and predivided": ((1,), {"prescale_gradients": True, "gradient_predivide_factor": 4.0}),
    "prescaled for an all-reduce": (
        (2,),
        {
            "prescale_gradients": True,
            "communication_data_type": "fp32",
            "zero_optimization": {"reduce_scatter": False},
        },
    ),
}
MOMENTS = [("one_pass", 3), ("one_pass", 1), ("two_pass", 3), ("two_pass", 1)]  # strategy, accumulation steps
SCORED = {  # global_microbatch adds up gradients over ranks before their norm; without projections that is exact
    "self_influence": {},
    "loss": {"signal": "loss"},
    "microbatch": {"granularity": "microbatch"},
    "global_microbatch": {"granularity": "global_microbatch"},
}
SETTINGS = {
    "stage": [2, 0, 1, 3],
    "moments": MOMENTS,
    "scored": list(SCORED),
    "aligned": [True, False],
    "samples": ["all", "not finite", "without targets"],
    "sharding": list(SHARDING),
    "kind": list(KINDS),
    "tied": [True, False],
    "optimizer": ["sgd", "adamw"],
    "clip": [0.0, 0.1],
    "checkpointing": [None, "reentrant", "non_reentrant"],
}


def can_be_had(case: dict[str, Any]) -> bool:
    """A sample that is not finite takes its micro-batch with it, which the reference does not do.

    It holds a token whose embedding is NaN; tied to the head, that would make every sample NaN.
    """
    return (
        case["stage"] in SHARDING[case["sharding"]][0]
        and (case["checkpointing"] is None or case["moments"][0] == "two_pass")
        and (case["scored"] != "global_microbatch" or case["moments"][1] > 1)
        and not (case["aligned"] and "microbatch" in case["scored"])
        and (case["samples"] != "not finite" or not (case["tied"] or "microbatch" in case["scored"]))
    )


@pytest.mark.parametrize("case", covered(SETTINGS, can_be_had), ids=named)
def test_training_equals_the_reference(two_ranks: Ranks, case: dict[str, Any]) -> None:
    """Weights, scores, losses, the norm of Σ w g, which is what is clipped, and the parameters."""
    settings = dict(SHARDING[case["sharding"]][1])
    strategy, accumulation_steps = case["moments"]
    training = Case(
        **{name: case[name] for name in ("kind", "tied", "stage", "optimizer", "clip", "checkpointing")},
        strategy=strategy,
        accumulation_steps=accumulation_steps,
        poison=case["samples"] == "not finite",
        targetless=case["samples"] == "without targets",
        zero=settings.pop("zero_optimization", {}),
        settings=settings,
        presence=SCORED[case["scored"]] | {"alignment": case["aligned"]},
    )
    limits = dict(TOLERANCE)
    for value in case.values():
        for key, limit in ROOM.get(value, {}).items():
            limits[key] = max(limits[key], limit)
    for worst in two_ranks.run(compare_with_reference, training):
        assert worst["movement"] > (1e-4 if training.clip else 1e-2)  # the comparison means something
        assert worst["nonfinite"] == training.poison
        for key, limit in limits.items():
            assert worst[key] < limit, (key, worst)


PLAIN = {"stage": [0, 1, 2, 3], "strategy": ["one_pass", "two_pass"], "accumulation_steps": [1, 3]}


@pytest.mark.parametrize("case", covered(PLAIN), ids=named)
def test_uniform_weights_are_plain_deepspeed(two_ranks: Ranks, case: dict[str, Any]) -> None:
    assert max(two_ranks.run(compare_uniform_with_plain, **case)) < 1e-6
