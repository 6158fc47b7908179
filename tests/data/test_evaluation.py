from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from presence_ds.data import build_evaluation_loader
from tests.data.samples.samples import documents, packed


def batches(samples: int, ranks: int, micro_batch_size: int, num_workers: int = 0) -> list[list[dict[str, Any]]]:
    """The batches of every rank, read twice."""
    dataset = packed([samples - samples // 3, samples // 3])
    options = {"micro_batch_size": micro_batch_size, "world_size": ranks, "num_workers": num_workers}
    loaders = [build_evaluation_loader(dataset, rank=rank, **options) for rank in range(ranks)]
    read = [list(loader) for loader in loaders]
    again = [[batch["document_ids"] for batch in loader] for loader in loaders]
    assert again == [[batch["document_ids"] for batch in own] for own in read]
    assert [len(own) for own in read] == [len(loader) for loader in loaders]
    return read


def assert_every_sample_once(read: list[list[dict[str, Any]]], samples: int, micro_batch_size: int) -> None:
    assert len({len(own) for own in read}) == 1
    seen = []
    for batch in (batch for own in read for batch in own):
        assert batch["input_ids"].shape == batch["labels"].shape == (micro_batch_size, 2)
        real = (batch["labels"] == batch["input_ids"]).all(dim=1)
        assert torch.equal(~real, (batch["labels"] == -100).all(dim=1))
        seen += [document for document, kept in zip(documents(batch), real.tolist(), strict=True) if kept]
    assert len(seen) == len(set(seen)) == samples


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 8))
def test_every_sample_once_in_as_many_batches_on_every_rank(samples: int, ranks: int, micro_batch_size: int) -> None:
    read = batches(samples, ranks, micro_batch_size)
    assert len(read[0]) == -(-samples // (ranks * micro_batch_size))
    assert_every_sample_once(read, samples, micro_batch_size)


@pytest.mark.parametrize("ranks", [1, 3])
def test_workers_change_nothing(ranks: int) -> None:
    read = batches(40, ranks, 4, num_workers=2)
    assert_every_sample_once(read, 40, 4)
    alone = batches(40, ranks, 4)
    assert [[documents(batch) for batch in own] for own in read] == [[documents(b) for b in own] for own in alone]


def test_the_first_batches_stand_for_all_sources() -> None:
    (own,) = batches(90, 1, 8)
    assert {document[0] for batch in own[:3] for document in batch["document_ids"]} == {"0", "1"}
