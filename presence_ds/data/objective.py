"""From rows of a prepared corpus to what a model is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from presence_ds.data.span_corruption import SpanCorruption, Spans, fit_spans
from presence_ds.data.tokenizer import padding_id, sentinel_ids
from presence_ds.errors import ConfigError

IGNORED = -100  # a label that is no target


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample.

    Attributes:
        row: of the text, as it is stored.
        inputs: positions of ``input_ids``.
        targets: positions of ``labels``.
    """

    row: int
    inputs: int
    targets: int


@dataclass
class ObjectiveConfig:
    """What a model learns to predict.

    Args:
        kind: causal, every token from those before it; or span_corruption, the objective of T5 and mT5, for
            encoder-decoder models: spans cut out of the encoder's inputs, from what is left.
        noise_density: Share of the tokens that span_corruption cuts out, between 0 and 1.
        mean_span_length: Mean length of a span that is cut out, in tokens, at least 1.
    """

    kind: Literal["causal", "span_corruption"] = "causal"
    noise_density: float = 0.15
    mean_span_length: float = 3.0

    @property
    def is_causal(self) -> bool:
        """Whether it is for causal models, and not for encoder-decoder models."""
        return self.kind == "causal"

    def spans(self, sequence_length: int) -> Spans:
        """Of span_corruption."""
        return fit_spans(sequence_length, self.noise_density, self.mean_span_length)

    def lengths(self, sequence_length: int) -> Lengths:
        """What a sample with ``sequence_length`` input positions is made of."""
        if self.is_causal:
            return Lengths(sequence_length, sequence_length, sequence_length)
        spans = self.spans(sequence_length)
        return Lengths(spans.row, spans.inputs, spans.targets)

    def num_sentinels(self, sequence_length: int) -> int:
        """Sentinels that the tokenizer has to have."""
        return 0 if self.is_causal else self.spans(sequence_length).count

    def validate(self, field: str, sequence_length: int) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used."""
        if not 0.0 < self.noise_density < 1.0:
            raise ConfigError(f"{field}.noise_density is {self.noise_density}: it must be above 0 and below 1")
        if not 1.0 <= self.mean_span_length < float("inf"):
            raise ConfigError(f"{field}.mean_span_length is {self.mean_span_length}: it must be at least 1")
        if self.is_causal:
            return
        spans = self.spans(sequence_length)
        if spans.inputs != sequence_length or not spans.count <= min(spans.noise, spans.row - spans.noise):
            raise ConfigError(
                f"{field}.noise_density is {self.noise_density} with mean_span_length {self.mean_span_length}, which "
                f"leaves no text between the spans of a sample of {sequence_length} inputs: cut out less, or raise "
                f"data.sequence_length"
            )


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
    spans = config.spans(sequence_length)
    return SpanCorruption(spans, sentinel_ids(tokenizer, spans.count), tokenizer.eos_token_id, seed, part)


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
