"""What a model adds to its cross-entropy is trained as it defines it, and reported; what cannot be is refused."""

from typing import Any

import pytest

from tests.engine import own_terms
from tests.ranks import Ranks

CASES: list[tuple[str, int, int, dict[str, Any]]] = [  # kind, stage, accumulation steps, section
    ("mixtral", 2, 2, {}),
    ("mixtral", 3, 1, {}),
    ("olmoe", 0, 1, {"signal": "loss", "strategy": "one_pass", "schedule": {"kind": "constant", "tau_direct": 0.0}}),
    ("gpt_oss", 1, 2, {}),
    ("switch_transformers", 0, 1, {}),
    ("squared", 2, 2, {}),
]


@pytest.mark.parametrize(("kind", "stage", "accumulation_steps", "presence"), CASES, ids=str)
def test_uniform_weights_train_on_the_models_own_loss(
    two_ranks: Ranks, kind: str, stage: int, accumulation_steps: int, presence: dict[str, Any]
) -> None:
    ranks = two_ranks.run(own_terms.beside_plain, kind, stage, accumulation_steps, presence)
    for found in ranks:
        assert found["difference"] < 5e-6 * max(1.0, found["movement"]), found
        assert min(found["movement"], found.get("terms", 1.0)) > 1e-3, found
        assert found["auxiliary_loss"] > 0.05
        assert found["auxiliary_loss"] == ranks[0]["auxiliary_loss"]
        assert found["evaluated"] > 2.0  # the model's own loss, cross-entropy and all


@pytest.mark.parametrize("stage", [1, 3])
def test_weights_do_not_touch_the_models_own_terms(two_ranks: Ranks, stage: int) -> None:
    for found in two_ranks.run(own_terms.weighted, stage):
        assert found["weights"] == found["without"] == 0
        assert found["spread"] > 0.01
        assert found["size"] > 1e-3
        assert found["update"] < 1e-5 * 10 * found["size"] + 2e-7, found
        assert abs(found["reported"]) < 1e-5


REFUSALS = {
    "one_pass": "ConfigError: model Squared adds terms of its own to the cross-entropy",
    "label smoothing": "ConfigError: model LlamaForCausalLM: its own loss is not the mean cross-entropy of its logits",
    "no loss": "ConfigError: the output of Shown has aux_loss, and nothing tells how it is trained",
    "changed later": "ConfigError: the output of MixtralForCausalLM has aux_loss, and nothing tells how it is trained",
    "batch in one pass": "ConfigError: model LlamaForCausalLM adds terms of its own to the cross-entropy",
}


def test_what_cannot_be_trained_is_refused_in_one_line(two_ranks: Ranks) -> None:
    for messages in two_ranks.run(own_terms.refusals):
        assert set(messages) == set(REFUSALS)
        for case, expected in REFUSALS.items():
            assert messages[case].startswith(expected), (case, messages[case])
            assert "\n" not in messages[case]
