"""Estimated model states against the tensors of a real engine, on two ranks."""

import pytest

from tests.ranks import Ranks
from tests.trainer.estimate import states
from tests.trainer.estimate.states import Case

PERSISTENT = {"stage3_param_persistence_threshold": 5_000}  # norms, keys and values
CASES = {
    **{f"stage {stage}, bf16": Case(stage) for stage in range(3)},
    "stage 2, fp32": Case(2, "fp32"),
    "stage 3, bf16": Case(3, zero=PERSISTENT),
    "stage 3, fp32": Case(3, "fp32", zero=PERSISTENT),
    "stage 2, sgd": Case(2, optimizer="sgd"),
    "stage 3, offloaded": Case(3, zero=PERSISTENT | {"offload_optimizer": {"device": "cpu"}}),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.long if "3" in case else []) for case in CASES])
def test_model_states(case: str, two_ranks: Ranks) -> None:
    for found, expected in two_ranks.run(states.measure, CASES[case]):
        assert found == pytest.approx(expected, rel=0.03)
