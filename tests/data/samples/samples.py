"""Packed datasets of a given shape, without any text, to follow single samples through loaders."""

from typing import Any

import datasets

from presence_ds.data import PackedDataset
from presence_ds.data.corpus.dataset import sample_features
from presence_ds.data.samples.objective import Causal


def packed(sizes: list[int]) -> PackedDataset:
    """``sizes[s]`` samples of two tokens for each source s; document ids are "source:number"."""
    ids = [(source, number) for source, size in enumerate(sizes) for number in range(size)]
    rows = {
        "input_ids": [list(pair) for pair in ids],
        "source_id": [source for source, _ in ids],
        "document_id": [f"{source}:{number}" for source, number in ids],
        "offset": [0] * len(ids),
    }
    return PackedDataset(
        datasets.Dataset.from_dict(rows, features=sample_features(2, "concat")), "train", Causal(2, None)
    )


def documents(batch: dict[str, Any]) -> list[str]:
    """The documents of a batch, of which the tokens must be."""
    assert [f"{source}:{number}" for source, number in batch["input_ids"].tolist()] == batch["document_ids"]
    return batch["document_ids"]
