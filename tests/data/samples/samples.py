"""Packed datasets of a given shape, without any text, to follow single samples through loaders."""

from typing import Any

import datasets
import torch

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
        "pieces": [[{"document_id": f"{source}:{number}", "offset": 0, "length": 2}] for source, number in ids],
    }
    return PackedDataset(
        datasets.Dataset.from_dict(rows, features=sample_features(2, "concat")), "train", Causal(2, None)
    )


def documents(batch: dict[str, Any]) -> list[str]:
    """The documents of a batch, of which the tokens must be."""
    assert [f"{source}:{number}" for source, number in batch["input_ids"].tolist()] == batch["document_ids"]
    return batch["document_ids"]


def check_documents(batch: dict[str, Any], eos: int) -> int:
    """Check that documents end with EOS, and are told apart as such; the number of rows that hold several."""
    names = ("input_ids", "labels", "position_ids", "document_indices")
    for ids, labels, positions, indices in zip(*(batch[name] for name in names), strict=True):
        text = indices >= 0
        begins = torch.ones_like(text)
        begins[1:] = ids[:-1].eq(eos) & text[1:]
        assert text.equal(text.cummin(0).values)
        assert indices[text].equal(begins[text].cumsum(0) - 1)
        begins |= text.logical_not() & text.roll(1)
        assert positions.eq(0).equal(begins)
        assert (positions[1:] - positions[:-1])[~begins[1:]].eq(1).all()
        assert labels.equal(ids.masked_fill(begins | ~text, -100))
    assert "attention_mask" not in batch
    return int((batch["document_indices"].amax(1) > 0).sum())
