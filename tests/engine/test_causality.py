"""A model that sees what it is to predict is refused; one that only touches other samples is warned of."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from presence_ds.engine.causality import check_causality
from presence_ds.errors import ConfigError
from tests.families.models import FAMILIES, VOCABULARY

_ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_STATE_SPACE = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _ENCODER),
    "roberta": ("roberta", _ENCODER | {"max_position_embeddings": 32}),
    "xlnet": ("xlnet", {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48}),
}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "bert as a decoder": ("bert", _ENCODER | {"is_decoder": True}),
    "mamba": ("mamba", _STATE_SPACE),
    "rwkv": ("rwkv", {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2}),
}
FAMILIES_THAT_ARE = ("llama", "mistral", "gpt2", "gemma3", "bloom", "mixtral", "gpt_oss", "t5", "bart")


def model_of(model_type: str, fields: dict[str, Any], dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **fields)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def check(model: nn.Module, *, encoder_decoder: bool = False) -> None:
    check_causality(model, model, VOCABULARY, torch.device("cpu"), encoder_decoder=encoder_decoder)


class Mixing(nn.Module):
    """Embedding, positions mixed by ``matrix`` [7, 7], head."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)
        self.matrix = matrix

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor | None = None) -> tuple[Tensor]:
        embedded = self.embedding(input_ids if decoder_input_ids is None else decoder_input_ids)
        return (self.head(self.matrix @ embedded),)


class ExpertChoice(Mixing):
    """An expert takes the half of all tokens of the batch that suits it best."""

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor | None = None) -> tuple[Tensor]:
        x = self.embedding(input_ids)
        flat = x.flatten(0, 1)
        chosen = flat[:, 0].argsort()[: len(flat) // 2]
        return (self.head(flat.index_put((chosen,), 3 * flat[chosen]).view_as(x)),)


LOWER = torch.ones(7, 7).tril()
PREFIX = LOWER.clone()
PREFIX[:2, :2] = 1.0
SEEING = {
    "all positions": torch.ones(7, 7),
    "a prefix of two": PREFIX,
    "one position ahead": LOWER + torch.diag(torch.ones(6), 1),
    "the last position": LOWER + torch.eye(7)[-1] * 0.01,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_are_refused(kind: str, dtype: torch.dtype) -> None:
    with pytest.raises(
        ConfigError, match=r"LM.*: logits of a position change with the tokens after it.*causal"
    ) as caught:
        check(model_of(*ENCODERS[kind], dtype))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder_decoder", [False, True])
@pytest.mark.parametrize("kind", SEEING)
def test_every_way_to_look_ahead_is_seen(kind: str, encoder_decoder: bool) -> None:
    with pytest.raises(ConfigError, match="the decoder's logits" if encoder_decoder else ": logits of a position"):
        check(Mixing(SEEING[kind]), encoder_decoder=encoder_decoder)
    check(Mixing(LOWER), encoder_decoder=encoder_decoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_models_pass(dtype: torch.dtype) -> None:
    """Windows, recurrences, experts and decoders, in narrow numbers too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="model .*logits of a sample")
        for kind in CAUSAL:
            check(model_of(*CAUSAL[kind], dtype))
        for name in FAMILIES_THAT_ARE:
            family = FAMILIES[name]
            check(family.build(tied=family.tying[0], dtype=dtype).eval(), encoder_decoder=family.encoder_decoder)


def test_samples_that_touch_each_other_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="model ExpertChoice: the logits of a sample change with the other samples"):
        check(ExpertChoice(LOWER))


def test_what_is_not_finite_tells_nothing() -> None:
    model = Mixing(LOWER)
    model.embedding.weight.data[:] = torch.nan
    check(model)
