"""The ``data.objective`` section of a recipe, and how long samples become with it."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample.

    Attributes:
        row: of the text, as it is stored.
        inputs: positions of ``input_ids``.
        targets: positions of ``labels``.
        noise: those of the row that span corruption cuts out.
        spans: in so many stretches, each of which has a sentinel.
    """

    row: int
    inputs: int
    targets: int
    noise: int = 0
    spans: int = 0


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
    noise_density: float = limited(0.15, above=0, below=1)
    mean_span_length: float = limited(3.0, least=1)

    @property
    def is_causal(self) -> bool:
        """Whether it is for causal models, and not for encoder-decoder models."""
        return self.kind == "causal"

    def lengths(self, sequence_length: int) -> Lengths:
        """What a sample with ``sequence_length`` input positions is made of."""
        if self.is_causal:
            return Lengths(sequence_length, sequence_length, sequence_length)
        return fit_spans(sequence_length, self.noise_density, self.mean_span_length)

    def validate(self, field: str, sequence_length: int) -> None:
        """Raise `ConfigError` if the fields under ``field`` leave no text between spans."""
        if self.is_causal:
            return
        found = self.lengths(sequence_length)
        if found.inputs != sequence_length or not found.spans <= min(found.noise, found.row - found.noise):
            raise ConfigError(
                f"{field}.noise_density is {self.noise_density} with mean_span_length {self.mean_span_length}, which "
                f"leaves no text between the spans of a sample of {sequence_length} inputs: cut out less, or raise "
                f"data.sequence_length"
            )


def lengths_of(row: int, noise_density: float, mean_span_length: float) -> Lengths:
    """What ``row`` tokens, at least 2, become: what is left and what is cut out, each with the sentinels and EOS."""
    noise = min(max(round(row * noise_density), 1), row - 1)
    spans = max(round(noise / mean_span_length), 1)
    return Lengths(row, row - noise + spans + 1, noise + spans + 1, noise, spans)


def fit_spans(inputs: int, noise_density: float, mean_span_length: float) -> Lengths:
    """The longest row of which no more than ``inputs`` positions are left, as `random_spans_helper` of T5 finds it.

    With 0.15 and 3.0, 1,024 inputs come from 1,137 tokens and leave 229 targets.
    """
    rows = range(2, round((inputs + 2) / (1 - noise_density)) + 3)
    fitting = bisect_right(rows, inputs, key=lambda row: lengths_of(row, noise_density, mean_span_length).inputs)
    return lengths_of(rows[max(fitting - 1, 0)], noise_density, mean_span_length)
