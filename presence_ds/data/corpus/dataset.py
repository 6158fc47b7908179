"""The samples of a part of a corpus: their columns on disk, and what is read of them."""

from typing import Any, TypedDict

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from presence_ds.data.samples.objective import Objective
from presence_ds.data.samples.packing import Piece

IDENTITY = ("source_id", "document_id", "offset")  # of a sample


class Sample(TypedDict, total=False):
    """One packed sample.

    ``input_ids`` and ``labels`` are int64 [sequence_length] and equal (transformers models shift labels themselves) but
    for padding, where ``labels`` is −100; ``attention_mask``, int64 [sequence_length], is 0 there and 1 elsewhere, and
    is absent in a corpus that has no padding. Where documents are kept apart there are, in its place, ``position_ids``
    and ``document_indices`` (`CausalByDocument`), no first token of a document is a label, and ``pieces`` says where
    the documents are from. With span corruption
    ``labels``, int64 [targets], are the decoder's outputs. ``source_ids`` indexes `Corpus.source_names`;
    ``document_ids`` is the document the sample starts in, and ``offsets`` the position of its first token there, in
    tokens.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    document_indices: torch.Tensor
    pieces: list[Piece]
    source_ids: int
    document_ids: str
    offsets: int


class PackedDataset(Dataset[Sample]):
    """The samples of one part of a corpus, from ``rows`` of `sample_features`.

    Loaders read draws (`Order.draws`): draw i is row i % len, read for epoch i // len, in which the objective may make
    something else of it. A single index is that of a row, as it is in epoch 0.
    """

    def __init__(self, rows: datasets.Dataset, part: str, objective: Objective) -> None:
        self.rows = rows
        self.part = part
        self.objective = objective
        self._arrays = rows.select_columns(["input_ids", *IDENTITY]).with_format("numpy")
        self._pieces = rows.select_columns(["pieces"]).with_format("arrow") if objective.reads_pieces else None

    def of_sources(self, source_ids: list[int]) -> "PackedDataset":
        """The samples of these sources alone."""
        kept = np.flatnonzero(np.isin(self._arrays["source_id"][:], source_ids))
        return PackedDataset(self.rows.select(kept), self.part, self.objective)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, draws: list[int]) -> list[Sample]:
        """A batch at once, which torch's loader prefers where it exists: several times cheaper than row by row."""
        numbers = [draw % len(self) for draw in draws]
        rows = self._arrays[numbers]
        if self._pieces is not None:
            found = self._pieces[numbers]["pieces"].to_pylist()
            rows["pieces"] = [[Piece(**piece) for piece in pieces] for pieces in found]
        inputs = self.objective(rows, np.array(draws, dtype=np.int64))
        samples: list[Sample] = []
        for index, (source_id, document_id, offset) in enumerate(zip(*(rows[name] for name in IDENTITY), strict=True)):
            sample: Any = {name: values[index] for name, values in inputs.items()}
            sample |= {"source_ids": int(source_id), "document_ids": str(document_id), "offsets": int(offset)}
            if self._pieces is not None:
                sample["pieces"] = rows["pieces"][index]
            samples.append(sample)
        return samples


def collate(samples: list[Sample]) -> dict[str, Any]:
    """A batch of samples as torch makes one, ``pieces`` as a list of the samples'."""
    pieces = [sample.pop("pieces") for sample in samples if "pieces" in sample]
    batch: dict[str, Any] = default_collate(samples)
    return batch | {"pieces": pieces} if pieces else batch


def sample_features(row_length: int, packing: str) -> datasets.Features:
    """The columns of a stored sample; only concat fills every row, and only with document is a row of one document."""
    features = {
        "input_ids": datasets.List(datasets.Value("int32"), length=row_length if packing == "concat" else -1),
        "source_id": datasets.Value("int32"),
        "document_id": datasets.Value("string"),
        "offset": datasets.Value("int64"),
    }
    if packing != "document":
        piece = {"document_id": datasets.Value("string"), "offset": datasets.Value("int64")}
        features["pieces"] = datasets.List({**piece, "length": datasets.Value("int32")})
    return datasets.Features(features)
