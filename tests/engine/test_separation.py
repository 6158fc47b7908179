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
from tests.models import VOCABULARY, engine_of, tokens

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


def check(model: nn.Module, *numbers: int) -> bool:
    """With rows of 900 tokens, of so many documents of one length."""
    ids = tokens(len(numbers), LENGTH)
    documents = Documents([torch.stack([torch.arange(LENGTH) // (LENGTH // number) for number in numbers])], "cpu")
    batch = {"input_ids": ids, "labels": ids, DOCUMENTS: documents}
    return check_separation(engine_of(model), batch, "the field")


@pytest.mark.parametrize("numbers", [[3], [3] * 4, [1, 3], [3, 1], [1, 1, 3], [1, 2, 1, 300]], ids=str)
def test_short_sight_into_a_document_before_is_seen(numbers: list[int]) -> None:
    assert check(Window(1), *numbers)
    with pytest.raises(ConfigError, match=r"^the field, and Window lets the documents of a sample see each other"):
        check(Window(4), *numbers)


def test_rows_of_one_document_tell_nothing() -> None:
    """And are not run."""
    model = Window(4)
    model.inside.register_forward_pre_hook(lambda *_: pytest.fail("the model is run"))
    assert not check(model, 1, 1)


def test_what_cannot_be_tried_is_warned_of() -> None:
    batch = {"labels": tokens(1, 6), DOCUMENTS: Documents([torch.tensor([[0, 0, 0, 1, 1, 1]])], "cpu")}
    untold = [(Window(4), batch), (nn.Linear(2, 2), batch | {"input_ids": tokens(1, 6)})]
    for model, given in untold:
        with pytest.warns(UserWarning, match=f"^the field, and nothing tells whether {type(model).__name__} keeps"):
            assert check_separation(engine_of(model), given, "the field")


def test_few_logits_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many documents there are."""
    compared: list[torch.Size] = []

    def share_changed(before: Tensor, after: Tensor) -> float:
        assert before.shape == after.shape
        compared.append(before.shape)
        return 0.0

    monkeypatch.setattr(separation, "share_changed", share_changed)
    check(Window(1), *[300] * 4)
    assert compared == [torch.Size([POSITIONS, VOCABULARY])] * 2
