"""What is put in the place of documents that are not finite."""

import torch
from torch import Tensor

from presence_ds.capture import Documents
from presence_ds.engine.batch import DOCUMENTS, replace_samples

INDICES = torch.tensor([[-1, -1, -1, -1], [0, 0, 1, 1], [0, 0, 0, -1]])  # the first row is padding alone


def replaced(kept: list[bool], *sequences: Tensor) -> list[list[int]]:
    documents = Documents(sequences or [INDICES], "cpu")
    ids = torch.arange(12).view(3, 4)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), DOCUMENTS: documents}
    _, found = replace_samples((), batch, torch.tensor(kept))
    assert torch.equal(found["attention_mask"], batch["attention_mask"])
    assert found[DOCUMENTS] is documents
    return [row.tolist() for row in found["input_ids"]]


def test_another_document_over_and_over() -> None:
    assert replaced([True, True, False, False]) == [[0, 1, 2, 3], [4, 5, 4, 5], [4, 5, 4, 11]]
    assert replaced([False, False, True, True]) == [[0, 1, 2, 3], [8, 9, 6, 7], [8, 9, 10, 11]]


def test_nothing_where_no_finite_document_has_a_position() -> None:
    """A row of padding has one without."""
    assert replaced([True, False, False, False]) == [[0] * 4] * 3
    assert replaced([False] * 4) == [[0] * 4] * 3
    only_encoder = torch.tensor([[-1, -1], [1, 1], [0, 0]])  # document 1 of three has nothing to be decoded
    assert replaced([False, True, False, False], INDICES, only_encoder) == [[0] * 4] * 3
