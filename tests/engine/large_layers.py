"""Runs on every rank of a pool: layers without a rule, and what `initialize` says of them."""

import warnings
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.behaviour import start
from tests.engine.training import MICRO_BATCH
from tests.models import VOCABULARY, tokens

WIDTH = 8


class TwoMatrices(nn.Module):
    """No rule by its kind: two matrices."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.down, self.up = (nn.Parameter(torch.randn(*shape)) for shape in ((WIDTH, rank), (rank, WIDTH)))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.down @ self.up / len(self.up)


class Doubled(nn.Linear):
    """No rule by what its forward turns out to do with the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 2 * self.weight) @ self.weight / len(self.weight)


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.embedding, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.layers = nn.ModuleDict(
            {
                "small": TwoMatrices(60_000),
                "pair": TwoMatrices(63_000),
                "doubled": Doubled(WIDTH, 126_000, bias=False),
                "wide": nn.Linear(WIDTH, 126_000),  # has a rule
                "narrow": nn.Linear(126_000, WIDTH),
            }
        )

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        x = self.embedding(input_ids)
        for layer in self.layers.values():
            x = layer(x)
        return (self.head(x),)


def warnings_of(stage: int) -> list[str]:
    """What is said of layer rules at `initialize` and in the first step."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        engine = start(_Model(), stage=stage)
        said = len(found)
        ids = tokens(MICRO_BATCH, 3)
        engine.backward(engine(input_ids=ids, labels=ids))
        engine.step()
    about = [str(warning.message) for warning in found if "layer rule" in str(warning.message)]
    assert not any("layer rule" in str(warning.message) for warning in found[said:])
    return about
