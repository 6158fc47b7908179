import pytest
from torch import nn

from presence_ds.errors import ConfigError
from presence_ds.influence import select_parameters
from tests.models import tiny_model


def test_all_holds_every_trainable_parameter_once() -> None:
    model = tiny_model("llama", tied=True)
    model.model.norm.weight.requires_grad_(False)
    names = set(select_parameters(model, "all").values())
    assert names == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("kind", "prefix"), [("llama", "model.layers.0."), ("gpt2", "transformer.h.0.")])
def test_first_is_the_first_block(kind: str, prefix: str) -> None:
    model = tiny_model(kind, tied=False)
    names = set(select_parameters(model, "first").values())
    assert names == {name for name, _ in model.named_parameters() if name.startswith(prefix)}


def test_a_tied_parameter_is_found_by_either_name() -> None:
    model = tiny_model("llama", tied=True)
    assert list(select_parameters(model, ["lm_head.weight"])) == [model.model.embed_tokens.weight]


def test_patterns_that_match_nothing_are_named() -> None:
    model = tiny_model("llama", tied=False)
    with pytest.raises(
        ConfigError, match=r'presence\.layers: "nothing\.\*" matches no trainable parameter; one is "model'
    ):
        select_parameters(model, ["model.*", "nothing.*"])


def test_first_needs_a_stack_of_blocks() -> None:
    with pytest.raises(ConfigError, match=r"presence\.layers is \"first\", but the model has no stack"):
        select_parameters(nn.Sequential(nn.Linear(2, 2)), "first")
