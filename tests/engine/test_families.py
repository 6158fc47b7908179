"""Models of every kind train with Σ_i w_i g_i on two ranks; what cannot be attributed is trained, and named."""

import pytest

from tests.combinations.covering import taking_turns
from tests.engine.families import Step, compare
from tests.ranks import Ranks

ONE_PASS = ["mistral", "gemma", "gpt_neox", "opt", "phi", "mt5", "t5", "bart"]
TWO_PASS = ["qwen3", "gemma2", "olmo2", "mt5", "umt5", "falcon"]
EXPERTS = {"mixtral": 4, "qwen3_moe": 4, "gpt_oss": None}  # number of parameters left out


def check(ranks: Ranks, step: Step) -> list[str]:
    found = ranks.run(compare, step)
    for difference in found:
        assert difference.weights < 1e-4, difference
        assert difference.update < 1e-4, difference
    return found[0].left_out


@pytest.mark.parametrize(("family", "stage"), taking_turns(ONE_PASS, [2, 3]))
def test_one_pass(two_ranks: Ranks, family: str, stage: int) -> None:
    assert check(two_ranks, Step(family, "one_pass", stage)) == []


@pytest.mark.parametrize(("family", "stage"), taking_turns(TWO_PASS, [2, 3]))
def test_two_pass_with_activation_checkpointing(two_ranks: Ranks, family: str, stage: int) -> None:
    assert check(two_ranks, Step(family, "two_pass", stage, accumulation_steps=2, checkpointing=True)) == []


@pytest.mark.parametrize(("family", "stage"), taking_turns(EXPERTS, [0, 2, 3]))
def test_experts_are_trained_but_not_scored(two_ranks: Ranks, family: str, stage: int) -> None:
    left_out = check(two_ranks, Step(family, "two_pass", stage, accumulation_steps=2))
    assert EXPERTS[family] in (None, len(left_out))
    assert left_out
    assert all(".experts." in name or ".router." in name or ".sinks" in name for name in left_out), left_out


@pytest.mark.parametrize(("strategy", "stage"), taking_turns(["one_pass", "two_pass"], [2, 3]))
def test_adapters(two_ranks: Ranks, strategy: str, stage: int) -> None:
    assert check(two_ranks, Step("llama", strategy, stage, lora=True)) == []
