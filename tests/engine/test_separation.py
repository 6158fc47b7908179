"""Whether a model keeps the documents of a row apart, told from few of its logits."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presence_ds.capture import Documents
from presence_ds.engine import separation
from presence_ds.engine.batch import DOCUMENTS
from presence_ds.engine.separation import POSITIONS, check_separation
from presence_ds.errors import ConfigError
from tests.models import VOCABULARY, tokens

LENGTH = 900


class Window(nn.Module):
    """Sees a token and those before it, ``width`` in all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.width = nn.Embedding(VOCABULARY, 8), width
        self.inside = nn.Conv1d(8, VOCABULARY, width)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        x = F.pad(self.embedding(input_ids).mT, (self.width - 1, 0))
        return (self.inside(x).mT,)


def check(width: int, rows: int) -> None:
    """With three documents in a row, each of 300 tokens."""
    model, ids = Window(width).eval(), tokens(rows, LENGTH)
    documents = Documents([(torch.arange(LENGTH) // 300).expand(rows, -1)], "cpu")
    check_separation(model, model, {"input_ids": ids, "labels": ids, DOCUMENTS: documents}, "the field")


@pytest.mark.parametrize("rows", [1, 4])
def test_short_sight_into_a_document_before_is_seen(rows: int) -> None:
    check(1, rows)
    with pytest.raises(ConfigError, match=r"^the field, and Window lets the documents of a sample see each other"):
        check(4, rows)


def test_few_logits_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many documents there are."""
    compared: list[torch.Size] = []

    def share_changed(before: Tensor, after: Tensor) -> float:
        assert before.shape == after.shape
        compared.append(before.shape)
        return 0.0

    monkeypatch.setattr(separation, "share_changed", share_changed)
    ids, model = tokens(4, LENGTH), Window(1)
    documents = Documents([(torch.arange(LENGTH) // 3).expand(4, -1)], "cpu")
    check_separation(model, model, {"input_ids": ids, "labels": ids, DOCUMENTS: documents}, "the field")
    assert compared == [torch.Size([POSITIONS, VOCABULARY])] * 2
