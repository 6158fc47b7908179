"""From rows of a prepared corpus to what a model is given."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from presence_ds.data.samples.objective_config import ObjectiveConfig
from presence_ds.data.samples.span_corruption import SpanCorruption
from presence_ds.data.tokenizer.encoding import padding_id, sentinel_ids

IGNORED = -100  # a label that is no target


class Objective(Protocol):
    """Turns stored rows into a batch's tensors.

    Attributes:
        reads_pieces: whether it has to know which tokens of a row are of one document.
    """

    reads_pieces: bool

    def __call__(self, rows: dict[str, Any], draws: NDArray[np.int64]) -> dict[str, Tensor]:
        """``input_ids``, ``labels`` and, where there is padding, ``attention_mask``, int64 [rows, positions].

        With documents kept apart there are ``position_ids`` and ``document_indices`` in the place of a mask.

        Args:
            rows: ``input_ids`` of the stored rows; ``pieces``, a list of `Piece` for each, for those that read them.
            draws: int64 [rows], a number for each that is another whenever the row is read for another epoch.
        """


def make_objective(
    config: ObjectiveConfig,
    sequence_length: int,
    packing: str,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    part: str,
    *,
    document_mask: bool = False,
) -> Objective:
    """The objective of a part of a corpus; ``document_mask`` keeps the documents of a sample apart.

    Raises:
        DataError: the tokenizer has too few sentinels.
    """
    if config.is_causal:
        padding = None if packing == "concat" else padding_id(tokenizer)
        return CausalByDocument(sequence_length, padding) if document_mask else Causal(sequence_length, padding)
    lengths = config.lengths(sequence_length)
    return SpanCorruption(lengths, sentinel_ids(tokenizer, lengths.spans), tokenizer.eos_token_id, seed, part)


def pad(rows: Sequence[NDArray[np.int32]], length: int, value: int) -> tuple[Tensor, Tensor]:
    """Rows of at most ``length`` tokens as one tensor, filled up on the right.

    Returns:
        Tokens and attention mask (1 at tokens, 0 at padding), both int64 [rows, length].
    """
    ids = np.full((len(rows), length), value, dtype=np.int64)
    lengths = np.array([len(row) for row in rows])
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return torch.from_numpy(ids), torch.from_numpy(mask)


class Causal:
    """Every token is predicted from those before it; transformers models shift the labels themselves.

    Args:
        sequence_length: Positions of a sample.
        padding_id: Token at positions without text. None: no row has any.
    """

    reads_pieces = False

    def __init__(self, sequence_length: int, padding_id: int | None) -> None:
        self.sequence_length = sequence_length
        self.padding_id = padding_id

    def __call__(self, rows: dict[str, Any], draws: NDArray[np.int64]) -> dict[str, Tensor]:
        """As `Objective`; a row is the same each time it is read."""
        if self.padding_id is None:
            ids = torch.from_numpy(rows["input_ids"]).long()
            return {"input_ids": ids, "labels": ids}
        ids, mask = pad(rows["input_ids"], self.sequence_length, self.padding_id)
        return {"input_ids": ids, "labels": ids.masked_fill(mask == 0, IGNORED), "attention_mask": mask}


class CausalByDocument(Causal):
    """`Causal`, but for the documents that packing puts into one row: each is as if it had the row to itself.

    ``position_ids`` count from the beginning of each piece of a document, and of the padding. Where they fall models of
    transformers end a document, if they are given no attention mask. The first label of each piece is no target: the
    token before it is of another document. ``document_indices`` number the pieces of a row from 0, and are −1 at
    padding.
    """

    reads_pieces = True

    def __call__(self, rows: dict[str, Any], draws: NDArray[np.int64]) -> dict[str, Tensor]:
        """As `Objective`; a row is the same each time it is read."""
        batch = super().__call__(rows, draws)
        batch.pop("attention_mask", None)
        indices = np.full(batch["input_ids"].shape, -1, dtype=np.int64)
        for target, pieces in zip(indices, rows["pieces"], strict=True):
            lengths = [piece.length for piece in pieces]
            target[: sum(lengths)] = np.repeat(np.arange(len(pieces)), lengths)
        begins = np.ones(indices.shape, dtype=bool)
        begins[:, 1:] = indices[:, 1:] != indices[:, :-1]
        columns = np.arange(indices.shape[1])
        positions = columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
        return {
            "input_ids": batch["input_ids"],
            "labels": batch["labels"].masked_fill(torch.from_numpy(begins), IGNORED),
            "position_ids": torch.from_numpy(positions),
            "document_indices": torch.from_numpy(indices),
        }
