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
    """Turns stored rows into a batch's tensors."""

    def __call__(self, rows: dict[str, Any], draws: NDArray[np.int64]) -> dict[str, Tensor]:
        """``input_ids``, ``labels`` and, where there is padding, ``attention_mask``, int64 [rows, positions].

        Args:
            rows: ``input_ids`` of the stored rows.
            draws: int64 [rows], a number for each that is another whenever the row is read for another epoch.
        """


def make_objective(
    config: ObjectiveConfig,
    sequence_length: int,
    packing: str,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    part: str,
) -> Objective:
    """The objective of a part of a corpus.

    Raises:
        DataError: the tokenizer has too few sentinels.
    """
    if config.is_causal:
        return Causal(sequence_length, None if packing == "concat" else padding_id(tokenizer))
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
